//! What every device keeps, run against each of them.

use std::{future::poll_fn, io, rc::Rc, task::Poll, thread};

use super::{Device, IoBuf, LocalBoxFuture};
use crate::format::BLOCK;

/// Length of the device that [`holds`] takes.
pub(super) const LEN: u64 = 64 * BLOCK;

fn filled(device: &dyn Device, blocks: u32, with: u8) -> IoBuf {
    let mut buf = device.alloc(blocks);
    assert_eq!((buf.len(), buf.capacity()), (0, blocks as usize * BLOCK as usize), "a fresh buffer is empty");
    buf.put(&vec![with; blocks as usize * BLOCK as usize]);
    buf
}

/// Runs the whole contract on a zeroed device of [`LEN`] bytes.
pub(super) async fn holds(device: Rc<dyn Device>) {
    assert_eq!(device.len(), LEN);
    reads_back_what_was_written(&*device).await;
    pads_with_zeros(&*device).await;
    refuses_what_is_out_of_place(&*device).await;
    keeps_writes_under_way_apart(&*device).await;
    takes_buffers_of_the_heap(&*device).await;
    freezes_for_any_thread(&*device).await;
}

async fn reads_back_what_was_written(device: &dyn Device) {
    let (r, back) = device.write(2 * BLOCK, filled(device, 3, 7)).await;
    r.expect("written");
    assert_eq!(back.as_ref(), vec![7; 3 * BLOCK as usize], "the buffer comes back as it was");
    assert_eq!(device.read(2 * BLOCK, 3 * BLOCK as usize).await.expect("read"), back.as_ref());
    let across = device.read(2 * BLOCK - 3, 10).await.expect("read");
    assert_eq!(across[..], [0, 0, 0, 7, 7, 7, 7, 7, 7, 7], "reads need no alignment");
    assert_eq!(device.read(5 * BLOCK - 1, 2).await.expect("read")[..], [7, 0]);
    assert!(device.read(3, 0).await.expect("read").is_empty());
}

async fn pads_with_zeros(device: &dyn Device) {
    // Memory that was full of something else before.
    drop(filled(device, 1, 0xee));
    let mut buf = device.alloc(1);
    buf.put(b"short");
    buf.pad_to_block();
    let (r, _) = device.write(0, buf).await;
    r.expect("written");
    let read = device.read(0, BLOCK as usize).await.expect("read");
    assert_eq!(&read[..5], b"short");
    assert!(read[5..].iter().all(|b| *b == 0), "nothing of the memory's past gets to the disk");
}

async fn refuses_what_is_out_of_place(device: &dyn Device) {
    let kind = |r: io::Result<()>| r.expect_err("refused").kind();
    assert_eq!(kind(device.write(512, filled(device, 1, 1)).await.0), io::ErrorKind::InvalidInput);
    let mut odd = device.alloc(1);
    odd.put(&[1; 100]);
    assert_eq!(kind(device.write(0, odd).await.0), io::ErrorKind::InvalidInput);
    assert_eq!(kind(device.write(LEN, filled(device, 1, 1)).await.0), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(device.read(LEN - 1, 2).await.map(drop)), io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(device.read(u64::MAX, 2).await.map(drop)), io::ErrorKind::UnexpectedEof);
}

async fn keeps_writes_under_way_apart(device: &dyn Device) {
    let mut under_way: Vec<LocalBoxFuture<'static, (io::Result<()>, IoBuf)>> =
        (0..8u32).map(|i| device.write((10 + u64::from(i) * 2) * BLOCK, filled(device, 2, i as u8 + 1))).collect();
    poll_fn(|cx| {
        under_way.retain_mut(|write| match write.as_mut().poll(cx) {
            Poll::Ready((r, _)) => {
                r.expect("written");
                false
            }
            Poll::Pending => true,
        });
        if under_way.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let all = device.read(10 * BLOCK, 16 * BLOCK as usize).await.expect("read");
    for (i, two) in all.chunks(2 * BLOCK as usize).enumerate() {
        assert!(two.iter().all(|b| *b == i as u8 + 1), "write {i}");
    }
}

async fn takes_buffers_of_the_heap(device: &dyn Device) {
    let mut buf = IoBuf::heap(1);
    buf.put(&[9; BLOCK as usize]);
    let (r, back) = device.write(40 * BLOCK, buf).await;
    r.expect("written");
    assert_eq!(back.as_ref(), [9; BLOCK as usize]);
    assert_eq!(device.read(40 * BLOCK + 5, 2).await.expect("read")[..], [9, 9]);
}

async fn freezes_for_any_thread(device: &dyn Device) {
    let (r, buf) = device.write(50 * BLOCK, filled(device, 2, 5)).await;
    r.expect("written");
    let frozen = buf.freeze();
    let slice = frozen.slice(100..200);
    let read = device.read(50 * BLOCK, 300).await.expect("read");
    thread::spawn(move || {
        assert!(frozen.iter().chain(&read).all(|b| *b == 5));
        drop((frozen, read));
    })
    .join()
    .expect("the other thread is content");
    assert_eq!(slice[..], [5; 100], "a slice keeps the memory alive");
    drop(slice);
    // The memory that came home does not disturb what follows.
    let (r, _) = device.write(50 * BLOCK, filled(device, 2, 6)).await;
    r.expect("written");
    assert_eq!(device.read(50 * BLOCK, 1).await.expect("read")[..], [6]);
}

#[test]
fn memory_holds_the_contract() {
    futures_lite::future::block_on(holds(Rc::new(super::MemoryDevice::new(LEN))));
}

#[test]
fn the_simulated_disk_holds_the_contract() {
    let delay: super::simulated::Delay = Rc::new(|_| Box::pin(futures_lite::future::yield_now()));
    let device = super::SimulatedDevice::new(LEN, 1, super::SimulatedFaults::default(), delay);
    futures_lite::future::block_on(holds(Rc::new(device)));
}
