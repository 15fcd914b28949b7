//! Where credentials come from, in the order of AWS's SDKs: variables, a web identity, the profile files, the container's
//! endpoint, the instance's metadata service. The first that is set up decides; when it fails nothing after it is asked,
//! so that a broken role is not silently replaced by another.
//!
//! Secrets never get into a log, a debug output or an error: errors are made of names, paths and statuses only.

mod cache;
mod container;
mod environment;
mod imds;
mod keys;
mod process;
mod profile;
#[cfg(test)]
mod tests;
mod web_identity;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;

pub use self::keys::Keys;
pub(crate) use self::{cache::Cache, imds::Imds, profile::Profile};
use crate::{http::Asker, surroundings::Surroundings};

/// Services on this machine answer at once or not at all.
const NEAR_CONNECT: Duration = Duration::from_secs(1);
const NEAR_ATTEMPT: Duration = Duration::from_secs(2);
/// STS may be a region away.
const FAR_ATTEMPT: Duration = Duration::from_secs(10);

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Whether waiting may help.
    pub(crate) passing: bool,
    /// A sentence for the user.
    pub(crate) why: String,
}

impl Trouble {
    pub(crate) fn lasting(why: impl Into<String>) -> Trouble {
        Trouble { passing: false, why: why.into() }
    }

    pub(crate) fn passing(why: impl Into<String>) -> Trouble {
        Trouble { passing: true, why: why.into() }
    }
}

/// What one source says.
#[derive(Debug)]
enum Looked {
    Found(Keys),
    /// The source is not set up; why that is so.
    Nothing(String),
}

/// The sources, in their order.
#[derive(Debug)]
pub(crate) struct Chain {
    around: Surroundings,
    near: Arc<Asker>,
    far: Asker,
    imds: Arc<Imds>,
    /// The region whose STS is asked, when one is known without asking the instance.
    region: Option<String>,
}

/// Who asks the services of this machine.
pub(crate) fn near(seed: u64) -> Arc<Asker> {
    Arc::new(Asker::new(NEAR_CONNECT, NEAR_ATTEMPT, seed))
}

impl Chain {
    pub(crate) fn new(
        around: Surroundings,
        near: Arc<Asker>,
        imds: Arc<Imds>,
        region: Option<String>,
        seed: u64,
    ) -> Chain {
        let far = Asker::new(Duration::from_secs(5), FAR_ATTEMPT, seed);
        Chain { around, near, far, imds, region }
    }

    /// The chain behind a cache.
    pub(crate) fn cached(self) -> Arc<Cache> {
        let (around, chain) = (self.around.clone(), Arc::new(self));
        Cache::new(around, move || {
            let chain = chain.clone();
            async move { chain.look().await }.boxed()
        })
    }

    /// The credentials of the first source that is set up.
    pub(crate) async fn look(&self) -> Result<Keys, Trouble> {
        let mut seen = Vec::new();
        for source in ["environment", "web identity", "profile", "container", "instance"] {
            let looked = match source {
                "environment" => environment::look(&self.around),
                "web identity" => web_identity::look(&self.around, &self.far, self.region.as_deref()).await,
                "profile" => profile::look(&self.around).await,
                "container" => container::look(&self.around, &self.near).await,
                _ => self.imds.look().await,
            };
            match looked {
                Ok(Looked::Found(keys)) => {
                    tracing::debug!(source, "took credentials");
                    return Ok(keys);
                }
                Ok(Looked::Nothing(why)) => seen.push(format!("{source} ({why})")),
                Err(trouble) => {
                    let before = if seen.is_empty() { String::new() } else { format!("; before: {}", seen.join(", ")) };
                    let why = format!("no credentials from {source}: {}{before}", trouble.why);
                    return Err(Trouble { why, ..trouble });
                }
            }
        }
        Err(Trouble::lasting(format!("no credentials; looked, in this order, at {}", seen.join(", "))))
    }
}
