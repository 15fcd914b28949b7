//! Where the bucket is: region, endpoint, and which way of naming it.

use crate::{
    S3Url, Style,
    credentials::{Imds, Profile, Trouble},
    surroundings::Surroundings,
};

/// What follows a service and a region in the names of AWS's hosts.
pub(crate) fn aws_suffix(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "amazonaws.com.cn",
        r if r.starts_with("us-iso-") => "c2s.ic.gov",
        r if r.starts_with("us-isob-") => "sc2s.sgov.gov",
        r if r.starts_with("eusc-") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// The region, as far as it is known without asking the instance.
pub(crate) fn region_at_hand(url: &S3Url, around: &Surroundings) -> Option<String> {
    let given = url.region.clone();
    given
        .or_else(|| around.variable("AWS_REGION"))
        .or_else(|| around.variable("AWS_DEFAULT_REGION"))
        .or_else(|| Profile::read(around).region())
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The region, which is signed.
    pub region: String,
    /// Scheme, host and port without the bucket; no `/` at the end.
    pub endpoint: String,
    /// The bucket, when it is part of the host's name instead of the path.
    pub host_bucket: Option<String>,
}

impl Place {
    /// Finds it out.
    ///
    /// # Errors
    /// When nothing tells the region.
    pub(crate) async fn find(url: &S3Url, around: &Surroundings, imds: &Imds) -> Result<Place, Trouble> {
        let ignored = around.says_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let variable = |name| around.variable(name).filter(|_| !ignored).map(|e| e.trim_end_matches('/').to_owned());
        let endpoint = url.endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL_S3"));
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL"));
        let wrong = |e: &String| !e.starts_with("http://") && !e.starts_with("https://");
        if let Some(endpoint) = endpoint.as_ref().filter(|e| wrong(e)) {
            return Err(Trouble::lasting(format!("endpoint {endpoint} must begin with http:// or https://")));
        }
        let region = match region_at_hand(url, around) {
            Some(region) => region,
            // Other servers than AWS seldom have regions; this is what they expect then.
            None if endpoint.is_some() => "us-east-1".to_owned(),
            None => imds.region().await.map_err(|trouble| Trouble {
                why: format!(
                    "no region: add ?region= to the URL or set AWS_REGION (also looked at AWS_DEFAULT_REGION, the \
                     profile's region, and the instance: {})",
                    trouble.why
                ),
                ..trouble
            })?,
        };
        let dualstack = url.dualstack || around.says_true("AWS_USE_DUALSTACK_ENDPOINT");
        Ok(Place::new(url, region, endpoint, dualstack))
    }

    /// The bucket of `url` in a region, of AWS without an endpoint.
    pub fn new(url: &S3Url, region: String, endpoint: Option<String>, dualstack: bool) -> Place {
        let style = url.style.unwrap_or(if endpoint.is_some() { Style::Path } else { Style::Virtual });
        // No certificate covers a bucket's dots.
        let in_host = style == Style::Virtual && !url.bucket.contains('.');
        let endpoint = endpoint.unwrap_or_else(|| {
            let stack = if dualstack { "dualstack." } else { "" };
            format!("https://s3.{stack}{region}.{}", aws_suffix(&region))
        });
        Place { region, endpoint, host_bucket: in_host.then(|| url.bucket.clone()) }
    }

    /// The bucket's own URL, without a `/` at the end.
    pub fn bucket_url(&self, bucket: &str) -> String {
        match (&self.host_bucket, self.endpoint.split_once("://")) {
            (Some(bucket), Some((scheme, host))) => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{}/{bucket}", self.endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_is_asked_by_the_buckets_host_and_others_by_path() {
        for (url, region, at) in [
            ("s3://bkt", "eu-west-1", "https://bkt.s3.eu-west-1.amazonaws.com"),
            ("s3://bkt", "us-gov-west-1", "https://bkt.s3.us-gov-west-1.amazonaws.com"),
            ("s3://bkt", "cn-north-1", "https://bkt.s3.cn-north-1.amazonaws.com.cn"),
            ("s3://bkt?dualstack=true", "eu-west-1", "https://bkt.s3.dualstack.eu-west-1.amazonaws.com"),
            ("s3://my.bkt", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.bkt"),
            ("s3://bkt?style=path", "mars-1", "https://s3.mars-1.amazonaws.com/bkt"),
            ("s3://bkt?endpoint=http://127.0.0.1:9000/", "x", "http://127.0.0.1:9000/bkt"),
            ("s3://bkt?endpoint=https://store:1&style=virtual", "x", "https://bkt.store:1"),
        ] {
            let url = S3Url::parse(url).expect("a URL");
            let place = Place::new(&url, region.to_owned(), url.endpoint.clone(), url.dualstack);
            assert_eq!(place.bucket_url(&url.bucket), at, "{url:?}");
        }
    }
}
