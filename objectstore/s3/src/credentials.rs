//! Where credentials come from: the environment, or AWS's profile file. Asked for anew at each request, so that rotated
//! credentials are taken up.
#![expect(clippy::disallowed_methods, reason = "AWS's tools take credentials from the environment")]

use futures_util::FutureExt;
use rusoto_core::credential::{AwsCredentials, CredentialsError, ProvideAwsCredentials};
use rusoto_credential::{EnvironmentProvider, ProfileProvider};

/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN` when the first is set; else the profile
/// `AWS_PROFILE` of `AWS_SHARED_CREDENTIALS_FILE`, or of `~/.aws/credentials`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AmbientCredentials;

impl ProvideAwsCredentials for AmbientCredentials {
    fn credentials<'life0, 'async_trait>(
        &'life0 self,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<AwsCredentials, CredentialsError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        async move {
            if std::env::var_os("AWS_ACCESS_KEY_ID").is_some() {
                return EnvironmentProvider::default().credentials().await;
            }
            let from_profile = async { ProfileProvider::new()?.credentials().await };
            from_profile.await.map_err(|e| {
                CredentialsError::new(format!("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile ({e})"))
            })
        }
        .boxed()
    }
}
