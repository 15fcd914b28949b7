//! Work that takes long: records are unpacked, hashed and packed on a thread of the process that serves no client.

use flume::Sender;

use super::filter::Unfit;

/// A piece of such work. It answers by itself; one that is dropped, or panics, answers nothing.
pub struct Errand(Box<dyn FnOnce() + Send>);

impl Errand {
    /// Does it.
    pub fn run(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errand")
    }
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum Lost {
    /// Nobody runs errands any more.
    Stopping,
    /// The work did not come to its end: a codec panicked over the bytes.
    Unfit(Unfit),
}

/// Has `work` done elsewhere.
pub(super) async fn send<T: Send + 'static>(
    errands: &Sender<Errand>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let (tell, told) = flume::bounded(1);
    let errand = move || {
        let _gone = tell.try_send(work());
    };
    errands.try_send(Errand(Box::new(errand))).map_err(|_| Lost::Stopping)?;
    told.recv_async().await.map_err(|_| match errands.is_disconnected() {
        true => Lost::Stopping,
        false => Lost::Unfit(Unfit("its records could not be unpacked".to_owned())),
    })
}
