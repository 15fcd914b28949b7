//! The directory of WAL slices, each a simulated disk. A power loss may bring removed files back, and drafts may be gone.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use thalweg::{
    broker::{OpenSlice, SliceFiles},
    cluster::SliceRecord,
};
use thalweg_record::PartitionId;
use thalweg_shards::runtime::{LocalBoxFuture, Runtime, seeded::Stream};
use thalweg_wal::{
    Device, SliceIdentity,
    device::{DeviceError, SimulatedDevice, SimulatedFaults, SliceOptions},
};

use super::host::OneThread;
use crate::{
    fuse::{Counts, Fuse},
    rot::{self, Harm, log_on},
};

/// All slices.
pub(crate) struct Disks(OneThread<Shelf>);

struct Shelf {
    files: RefCell<BTreeMap<PathBuf, SimulatedDevice>>,
    removed: RefCell<BTreeMap<PathBuf, SimulatedDevice>>,
    faults: RefCell<SimulatedFaults>,
    random: RefCell<Stream>,
    /// What befalls the bytes themselves.
    rot: RefCell<Stream>,
    runtime: Rc<dyn Runtime>,
    slowest_us: u64,
    fuse: Rc<Fuse>,
}

impl Disks {
    /// No slice yet. An operation takes up to 3 or 20 ms, and may overtake others.
    pub(crate) fn new(runtime: Rc<dyn Runtime>, mut random: Stream, rot: Stream, fuse: Rc<Fuse>) -> Disks {
        let slowest_us = if random.one_in(2) { 3_000 } else { 20_000 };
        let (files, removed, faults) = Default::default();
        let (random, rot) = (RefCell::new(random), RefCell::new(rot));
        Disks(OneThread::new(Shelf { files, removed, faults, random, rot, runtime, slowest_us, fuse }))
    }

    /// How all disks fail from now on.
    pub(crate) fn set_faults(&self, faults: SimulatedFaults) {
        let shelf = self.0.get();
        *shelf.faults.borrow_mut() = faults;
        shelf.files.borrow().values().for_each(|device| device.set_faults(faults));
    }

    /// The power goes, or the process alone dies.
    pub(crate) fn crash(&self, power: bool) {
        let shelf = self.0.get();
        let (mut files, mut removed) = (shelf.files.borrow_mut(), shelf.removed.borrow_mut());
        let mut random = shelf.random.borrow_mut();
        if power {
            files.retain(|path, _| !is_draft(path) || random.one_in(2));
            for (path, device) in std::mem::take(&mut *removed) {
                if random.one_in(2) {
                    files.entry(path).or_insert(device);
                }
            }
        }
        removed.clear();
        files.values_mut().for_each(|device| *device = if power { device.crash() } else { device.kill() });
    }

    /// Hits one disk: the ring, or a superblock.
    pub(crate) fn hit(&self, hit: impl Fn(&SimulatedDevice, &mut Stream)) {
        let shelf = self.0.get();
        let (files, mut rot) = (shelf.files.borrow(), shelf.rot.borrow_mut());
        let at = rot.below(files.len().max(1) as u64) as usize;
        files.values().nth(at).into_iter().for_each(|device| hit(device, &mut rot));
    }

    /// Hits every disk with a probability of one half.
    pub(crate) fn hit_each(&self, hit: impl Fn(&SimulatedDevice, &mut Stream)) {
        let shelf = self.0.get();
        let (files, mut rot) = (shelf.files.borrow(), shelf.rot.borrow_mut());
        for device in files.values() {
            if rot.one_in(2) {
                hit(device, &mut rot);
            }
        }
    }

    /// Before a start: undoes what no log could survive or notice. Says what is left.
    pub(crate) fn settle(&self) -> Harm {
        let files = self.0.get().files.borrow();
        // All of them.
        let harms: Vec<Harm> = files.values().map(rot::settle).collect();
        if harms.contains(&Harm::Acknowledged) { Harm::Acknowledged } else { Harm::Hidden }
    }

    /// Undoes all damage.
    pub(crate) fn heal(&self) {
        self.0.get().files.borrow().values().for_each(|device| device.heal(0..Device::len(device) as usize));
    }

    /// The slices that lie there, as their superblocks tell, and the partitions of which they hold records.
    pub(crate) fn slices(&self) -> (Vec<SliceRecord>, BTreeSet<PartitionId>) {
        let files = self.0.get().files.borrow();
        let (mut slices, mut hold) = (Vec::new(), BTreeSet::new());
        for (path, device) in files.iter().filter(|(path, _)| !is_draft(path)) {
            let Some(log) = log_on(device.peek(Device::len(device) as usize)) else { continue };
            let SliceIdentity { slice: id, shard, .. } = log.newest.identity;
            slices.push(SliceRecord { id, shard, path: path.clone(), closed_empty: false });
            hold.extend(log.partitions.into_keys());
        }
        (slices, hold)
    }

    /// Somebody takes the log away.
    pub(crate) fn lose_all(&self) {
        self.0.get().files.borrow_mut().clear();
    }

    /// A CRC over all that is durable.
    pub(crate) fn digest(&self) -> u64 {
        let files = self.0.get().files.borrow();
        files.values().fold(files.len() as u64, |sum, device| sum.rotate_left(7) ^ u64::from(device.digest()))
    }
}

fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "draft")
}

impl Shelf {
    /// An operation of the file system; nothing reaches it any more when the power is gone.
    fn act(&self) -> io::Result<()> {
        self.fuse.count(Counts::Device);
        if self.fuse.blown() { Err(io::Error::other("simulated: the power is gone")) } else { Ok(()) }
    }

    fn device(&self, len: u64) -> SimulatedDevice {
        let (runtime, fuse, slowest_us) = (self.runtime.clone(), self.fuse.clone(), self.slowest_us);
        let random = RefCell::new(Stream::new(self.random.borrow_mut().next(), 1));
        let delay = move |_| -> LocalBoxFuture<'static, ()> {
            fuse.count(Counts::Device);
            let us = random.borrow_mut().below(slowest_us);
            let (done, fuse) = (runtime.sleep_until(runtime.mono().plus(Duration::from_micros(us))), fuse.clone());
            Box::pin(async move {
                done.await;
                fuse.count(Counts::Device);
            })
        };
        let seed = self.random.borrow_mut().next();
        SimulatedDevice::new(len, seed, *self.faults.borrow(), Rc::new(delay))
    }
}

impl OpenSlice for Disks {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        _options: SliceOptions,
        _runtime: &'a Rc<dyn Runtime>,
    ) -> LocalBoxFuture<'a, Result<Rc<dyn Device>, DeviceError>> {
        Box::pin(async move {
            let found = self.0.get().files.borrow().get(path).cloned();
            found.map(|device| Rc::new(device) as Rc<dyn Device>).ok_or_else(|| missing(path))
        })
    }
}

fn missing(path: &Path) -> DeviceError {
    DeviceError::Io { what: "open", path: path.to_owned(), source: io::ErrorKind::NotFound.into() }
}

impl SliceFiles for Disks {
    fn prepare(&self, dir: &Path) -> io::Result<PathBuf> {
        Ok(dir.to_owned())
    }

    fn lock(&self, _dir: &Path) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let files = self.0.get().files.borrow();
        Ok(files.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn len(&self, path: &Path) -> Option<u64> {
        self.0.get().files.borrow().get(path).map(Device::len)
    }

    fn head(&self, path: &Path, len: u64) -> io::Result<Vec<u8>> {
        let files = self.0.get().files.borrow();
        let device = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(device.peek(len.min(device.len()) as usize))
    }

    fn same(&self, a: &Path, b: &Path) -> bool {
        a == b
    }

    fn create(&self, path: &Path, len: u64, _options: SliceOptions) -> Result<(), DeviceError> {
        let shelf = self.0.get();
        shelf.act().map_err(|source| DeviceError::Io { what: "create", path: path.to_owned(), source })?;
        shelf.files.borrow_mut().insert(path.to_owned(), shelf.device(len));
        Ok(())
    }

    fn publish(&self, draft: &Path, path: &Path) -> io::Result<()> {
        let shelf = self.0.get();
        shelf.act()?;
        let mut files = shelf.files.borrow_mut();
        let device = files.remove(draft).ok_or(io::ErrorKind::NotFound)?;
        files.insert(path.to_owned(), device);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let shelf = self.0.get();
        shelf.act()?;
        let device = shelf.files.borrow_mut().remove(path).ok_or(io::ErrorKind::NotFound)?;
        shelf.removed.borrow_mut().insert(path.to_owned(), device);
        Ok(())
    }
}
