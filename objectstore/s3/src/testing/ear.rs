//! Hears everything that is logged, by any library, through either front.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

/// Everything that is logged, by any library, through either front.
#[derive(Clone, Default)]
pub(crate) struct Ear(Arc<Mutex<String>>);

impl Ear {
    /// Hears what `work` logs, and what it says itself.
    ///
    /// # Panics
    /// When there was a secret in it, or nothing at all.
    pub(crate) fn alone(work: impl FnOnce(&Ear)) {
        let ear = Ear::default();
        log::set_logger(Box::leak(Box::new(ear.clone()))).expect("no other logger in these tests");
        log::set_max_level(log::LevelFilter::Trace);
        // With one subscriber alone, other threads would switch events off for this one too.
        let _second = tracing::Dispatch::new(ear.clone());
        tracing::subscriber::with_default(ear.clone(), || work(&ear));
        let heard = ear.0.lock().expect("a lock").clone();
        assert!(heard.contains("took credentials") && heard.lines().count() > 3, "the ear is deaf: {heard}");
        let shown: Vec<&str> = heard.lines().filter(|line| line.contains("SECRET")).collect();
        assert!(shown.is_empty(), "{shown:#?}");
    }

    pub(crate) fn hear(&self, what: impl fmt::Display) {
        self.0.lock().expect("a lock").push_str(&format!("{what}\n"));
    }
}

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.hear(record.args());
    }

    fn flush(&self) {}
}

impl tracing::Subscriber for Ear {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        self.hear(format_args!("{span:?}"));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        self.hear(format_args!("{values:?}"));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.hear(format_args!("{event:?}"));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
