//! `s3://bucket/prefix?region=&endpoint=&style=&dualstack=&sse=&sse.kms.key.id=&checksum=`.

use thalweg_objectstore::ObjectKey;
use url::Url;

/// How requests name the bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    Virtual,
}

/// What objects are encrypted with where they lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// What the bucket is set to.
    Buckets,
    /// `AES256`: S3's own keys (SSE-S3).
    Aes256,
    /// `aws:kms`: a key of the key service (SSE-KMS), the account's own for S3 when none is named.
    Kms(Option<String>),
}

/// What the server checks that arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// CRC-32C of each body.
    Crc32c,
    /// Nothing, for servers that do not know checksums.
    None,
}

/// Where a store is, as far as its URL says; what it leaves out is found when the first request needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Url {
    /// The bucket.
    pub bucket: String,
    /// What all keys start with; empty, or ends in `/`.
    pub prefix: String,
    /// `region=`, which is signed. Else `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, the instance's.
    pub region: Option<String>,
    /// `endpoint=`: another server than AWS, `http://` or `https://`.
    pub endpoint: Option<String>,
    /// `style=path` or `style=virtual`. Else virtual for AWS, and path for another endpoint. A bucket with dots in its
    /// name is always in the path: no certificate covers them.
    pub style: Option<Style>,
    /// `dualstack=true`: AWS's endpoints that speak IPv6 too.
    pub dualstack: bool,
    /// `sse=AES256`, `sse=aws:kms`, `sse.kms.key.id=`.
    pub encryption: Encryption,
    /// `checksum=crc32c`, the default, or `checksum=none`.
    pub checksum: Checksum,
}

/// Why an S3 store cannot be opened, as a sentence for the user.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{url}: {why}; use s3://bucket/prefix?region=REGION&endpoint=URL, see conf/thalweg.toml")]
pub struct UrlError {
    /// As given.
    pub url: String,
    /// What is wrong with it.
    pub why: String,
}

impl S3Url {
    /// The name of an object in the bucket.
    pub fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Reads a store's URL.
    ///
    /// # Errors
    /// [`UrlError`] that says what is wrong.
    pub fn parse(url: &str) -> Result<S3Url, UrlError> {
        let failed = |why: &str| UrlError { url: url.to_owned(), why: why.to_owned() };
        let parsed = Url::parse(url).map_err(|e| failed(&e.to_string()))?;
        if parsed.scheme() != "s3" {
            return Err(failed("not an s3:// URL"));
        }
        let bucket = parsed.host_str().unwrap_or_default().to_owned();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
            return Err(failed("a bucket's name has 3 to 63 lower-case letters, digits, '-' and '.'"));
        }
        if parsed.port().is_some() || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(failed("credentials come from the environment, a server from endpoint="));
        }
        let (mut region, mut endpoint, mut style, mut dualstack) = (None, None, None, false);
        let (mut encryption, mut key, mut checksum) = (Encryption::Buckets, None, Checksum::Crc32c);
        for (name, value) in parsed.query_pairs() {
            match &*name {
                "region" if !value.is_empty() => region = Some(value.into_owned()),
                "endpoint" if value.starts_with("http://") || value.starts_with("https://") => {
                    endpoint = Some(value.trim_end_matches('/').to_owned());
                }
                "style" if value == "path" => style = Some(Style::Path),
                "style" if value == "virtual" => style = Some(Style::Virtual),
                "dualstack" if value == "true" || value == "false" => dualstack = value == "true",
                "sse" if value == "AES256" => encryption = Encryption::Aes256,
                "sse" if value == "aws:kms" => encryption = Encryption::Kms(None),
                "sse.kms.key.id" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()) => {
                    key = Some(value.into_owned());
                }
                "checksum" if value == "crc32c" || value == "none" => {
                    checksum = if value == "none" { Checksum::None } else { Checksum::Crc32c };
                }
                "region" | "endpoint" | "style" | "dualstack" | "sse" | "sse.kms.key.id" | "checksum"
                    if value.is_empty() => {}
                "sse" => return Err(failed("sse= is AES256 or aws:kms")),
                "sse.kms.key.id" => return Err(failed("sse.kms.key.id= is a key's id, ARN or alias")),
                "checksum" => return Err(failed("checksum= is crc32c or none")),
                "endpoint" => return Err(failed("endpoint= must begin with http:// or https://")),
                "style" => return Err(failed("style= is path or virtual")),
                "dualstack" => return Err(failed("dualstack= is true or false")),
                _ => return Err(failed(&format!("{name}= is not known"))),
            }
        }
        let encryption = match (encryption, key) {
            (Encryption::Kms(_), key) => Encryption::Kms(key),
            (encryption, None) => encryption,
            _ => return Err(failed("sse.kms.key.id= needs sse=aws:kms")),
        };
        let prefix = match parsed.path().trim_matches('/') {
            "" => String::new(),
            path => match ObjectKey::new(path) {
                Ok(key) if path.len() <= 500 => format!("{key}/"),
                _ => return Err(failed("a prefix has at most 500 letters, digits and any of . _ = - /")),
            },
        };
        Ok(S3Url { bucket, prefix, region, endpoint, style, dualstack, encryption, checksum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = S3Url::parse("s3://my-bucket/a/b/?region=eu-north-1&endpoint=http://127.0.0.1:8014/").expect("a URL");
        assert_eq!(
            (url.bucket.as_str(), url.prefix.as_str(), url.region.as_deref()),
            ("my-bucket", "a/b/", Some("eu-north-1"))
        );
        assert_eq!(url.endpoint.as_deref(), Some("http://127.0.0.1:8014"));
        assert_eq!((url.style, url.dualstack), (None, false));
        assert_eq!((&url.encryption, url.checksum), (&Encryption::Buckets, Checksum::Crc32c));
        let kms = S3Url::parse("s3://my-bucket?sse=aws:kms&sse.kms.key.id=alias/a&checksum=none").expect("a URL");
        assert_eq!((kms.encryption, kms.checksum), (Encryption::Kms(Some("alias/a".to_owned())), Checksum::None));
        let bare = S3Url::parse("s3://my-bucket?style=virtual&dualstack=true").expect("a URL");
        assert_eq!((bare.prefix.as_str(), bare.endpoint.as_deref(), bare.region.as_deref()), ("", None, None));
        assert_eq!((bare.style, bare.dualstack), (Some(Style::Virtual), true));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, says) in [
            ("s3://B/x", "bucket's name"),
            ("s3://my-bucket/x?colour=red", "colour= is not known"),
            ("s3://my-bucket/x?endpoint=127.0.0.1", "must begin with http://"),
            ("s3://my-bucket/x?style=vhost", "style= is path or virtual"),
            ("s3://my-bucket/x?sse=aws", "sse= is AES256 or aws:kms"),
            ("s3://my-bucket/x?sse=AES256&sse.kms.key.id=k", "needs sse=aws:kms"),
            ("s3://my-bucket/x?checksum=md5", "checksum= is crc32c or none"),
            ("s3://my-bucket/x?dualstack=yes", "dualstack= is true or false"),
            ("s3://key:secret@my-bucket/x", "come from the environment"),
            ("s3://my-bucket/x%20y", "a prefix has"),
            ("file:///x", "not an s3:// URL"),
            ("nothing", "relative URL"),
        ] {
            let error = S3Url::parse(url).expect_err(url).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
