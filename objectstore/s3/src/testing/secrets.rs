//! That nothing secret is shown when requests are signed and sent.

use super::{
    behaviour::{Make, limits},
    ear::Ear,
    stub::{Instance, Reply, serve},
};
use crate::{Requests, S3Store, S3Url};
use bytes::Bytes;
use thalweg_objectstore::{ObjectKey, ObjectStore, PutCondition};

pub fn nothing_secret_is_logged_or_shown_of_requests<R: Requests>(make: Make<R>) {
    Ear::alone(|ear| {
        let instance = Instance::start();
        let (s3, seen) = serve(|_, n| Some(Reply::of(if n == 0 { 200 } else { 403 }, "no")));
        let around = instance.surroundings(vec![("AWS_ENDPOINT_URL_S3", s3)]);
        // On this thread alone, whose log is heard.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let url = S3Url::parse("s3://bucket").expect("a URL");
        let store = S3Store::ambient(url, around, runtime.handle(), limits(), make);
        let key = ObjectKey::new("k").expect("a key");
        let put = runtime.block_on(store.put(&key, vec![Bytes::from_static(b"x")], PutCondition::Always));
        let refused = runtime.block_on(store.get_range(&key, 0..1));
        ear.hear(format_args!("{store:?} {:?} {put:?} {refused:?}", store.inner().engine));
        let seen = seen.lock().expect("a lock");
        let signed =
            seen.iter().all(|asked| asked.header("x-amz-security-token").is_some_and(|t| t.contains("SECRET")));
        assert!(seen.len() == 2 && signed, "{seen:?}");
    });
}
