//! What wakes a shard: the first message of its lanes, in the order control, completions, requests.
//!
//! Lives on the shard's executor. Nothing stays registered in a channel between two turns: a turn takes messages with
//! `try_recv`, and a registration whose message was taken that way would count as woken for ever. flume then registers
//! it again at every poll, and the next message wakes the task once for each of them (glommio counts wakers in 16 bits
//! and aborts at 32,768).

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use flume::{Receiver, TryRecvError};

use crate::{
    event::Event,
    msg::{Control, Request},
};

/// What woke the shard.
pub(crate) enum Woken {
    Control(Control),
    Event(Event),
    Request(Request),
    /// Nobody can stop the shard any more: the process is going down.
    Closed,
}

/// Waits for the first message; `data` is `None` while the shard takes no requests. Dropping it loses no message.
pub(crate) async fn first_message(
    control: &Receiver<Control>,
    events: &Receiver<Event>,
    data: Option<&Receiver<Request>>,
) -> Woken {
    match control.try_recv() {
        Ok(message) => return Woken::Control(message),
        Err(TryRecvError::Disconnected) => return Woken::Closed,
        Err(TryRecvError::Empty) => {}
    }
    if let Ok(event) = events.try_recv() {
        return Woken::Event(event);
    }
    if let Some(Ok(request)) = data.map(Receiver::try_recv) {
        return Woken::Request(request);
    }
    let (mut control, mut events) = (pin!(control.recv_async()), pin!(events.recv_async()));
    let mut data = pin!(data.map(Receiver::recv_async));
    poll_fn(|cx| {
        if let Poll::Ready(message) = control.as_mut().poll(cx) {
            return Poll::Ready(message.map_or(Woken::Closed, Woken::Control));
        }
        if let Poll::Ready(Ok(event)) = events.as_mut().poll(cx) {
            return Poll::Ready(Woken::Event(event));
        }
        match data.as_mut().as_pin_mut().map(|data| data.poll(cx)) {
            Some(Poll::Ready(Ok(request))) => Poll::Ready(Woken::Request(request)),
            _ => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stop() -> Control {
        Control::Stop { deadline: thalweg_record::Mono(0), done: flume::bounded(1).0 }
    }

    #[test]
    fn a_message_wakes_once_however_often_a_turn_took_others_itself() {
        let (to_control, control) = flume::unbounded();
        let (to_events, events) = flume::unbounded();
        let (_to_data, data) = flume::unbounded();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..100 {
            let mut waiting = pin!(first_message(&control, &events, Some(&data)));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            // What a turn does: an event wakes it, and what else has come it takes from the lanes itself.
            to_events.send(Event::Tick).expect("open");
            to_control.send(stop()).expect("open");
            assert!(matches!(control.try_recv(), Ok(Control::Stop { .. })));
            assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(Woken::Event(Event::Tick))));
        }
        let mut waiting = pin!(first_message(&control, &events, Some(&data)));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        wakes.0.store(0, Ordering::Relaxed);
        to_control.send(stop()).expect("open");
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(Woken::Control(_))));
    }

    #[test]
    fn control_comes_first_and_requests_only_when_they_are_taken() {
        let (to_control, control) = flume::unbounded();
        let (to_events, events) = flume::unbounded();
        let (to_data, data) = flume::unbounded();
        let mut cx = Context::from_waker(Waker::noop());
        to_data.send(Request::ConnGone(crate::msg::ConnId(7))).expect("open");
        to_events.send(Event::Tick).expect("open");
        to_control.send(stop()).expect("open");
        let mut next = |data| match pin!(first_message(&control, &events, data)).poll(&mut cx) {
            Poll::Ready(woken) => Some(woken),
            Poll::Pending => None,
        };
        assert!(matches!(next(Some(&data)), Some(Woken::Control(_))));
        assert!(matches!(next(Some(&data)), Some(Woken::Event(_))));
        assert!(next(None).is_none());
        assert!(matches!(next(Some(&data)), Some(Woken::Request(_))));
        assert!(next(Some(&data)).is_none());
        drop(to_control);
        assert!(matches!(next(Some(&data)), Some(Woken::Closed)));
    }
}
