//! Topics in the ledger: create, change, delete; and altered settings of everything else. Durable after the next sync.

use std::{collections::BTreeMap, sync::Arc};

use thalweg_record::{PartitionId, TopicId};

use super::{
    altered::{ConfigTarget, Values},
    catalog::Topic,
    keys,
    ledger::{Fault, Ledger},
    partition::Partition,
    schema::{self, ConfigRecord, TopicRecord},
    store::{Compare, Write},
};

/// A topic about to be created; everything in it is checked.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct NewTopic {
    pub(super) id: TopicId,
    pub(super) name: String,
    pub(super) partitions: i32,
    pub(super) internal: bool,
    pub(super) overrides: BTreeMap<String, String>,
}

impl Ledger {
    /// Creates a topic whose name and id are free.
    pub(super) fn create_topic(&mut self, new: NewTopic) -> Result<u64, Fault> {
        let NewTopic { id, name, partitions, internal, overrides } = new;
        let created = self.store().revision().0;
        let record = TopicRecord { name: name.clone(), partitions, internal, overrides: overrides.clone(), created };
        let absent = vec![Compare::Absent(keys::topic(id)), Compare::Absent(keys::name(&name))];
        let puts = [Write::Put(keys::topic(id), schema::encode(&record)), Write::Put(keys::name(&name), id.0.to_vec())];
        let revision = self.write(absent, &puts)?;
        self.operator_changes += 1;
        let name: Arc<str> = name.into();
        let partitions = vec![Partition::default(); partitions.unsigned_abs() as usize];
        self.catalog.names.insert(name.clone(), id);
        self.catalog.topics.insert(id, Topic { name, internal, overrides, created, revision, partitions });
        Ok(revision.0)
    }

    /// Gives an existing topic this many partitions (never fewer than it has) and these overrides.
    pub(super) fn change_topic(
        &mut self,
        id: TopicId,
        partitions: i32,
        overrides: BTreeMap<String, String>,
    ) -> Result<u64, Fault> {
        let topic = &self.catalog.topics[&id];
        let record = TopicRecord {
            name: topic.name.to_string(),
            partitions,
            internal: topic.internal,
            overrides: overrides.clone(),
            created: topic.created,
        };
        let unchanged = vec![Compare::Revision(keys::topic(id), topic.revision)];
        let revision = self.write(unchanged, &[Write::Put(keys::topic(id), schema::encode(&record))])?;
        self.operator_changes += 1;
        let topic = self.catalog.topics.get_mut(&id).expect("looked up above");
        let partitions = partitions.unsigned_abs() as usize;
        assert!(partitions >= topic.partitions.len(), "partitions are never taken away");
        topic.partitions.resize_with(partitions, Partition::default);
        topic.overrides = overrides;
        topic.revision = revision;
        Ok(revision.0)
    }

    /// Stores `values` as what was altered of `target`, in place of what was there.
    pub(super) fn alter(&mut self, target: &ConfigTarget, values: Values) -> Result<u64, Fault> {
        let key = keys::config(target, self.node());
        let write = match values.is_empty() {
            true => Write::Delete(key),
            false => Write::Put(key, schema::encode(&ConfigRecord { values: values.clone() })),
        };
        let revision = self.write(vec![], &[write])?;
        self.operator_changes += 1;
        Arc::make_mut(&mut self.catalog.altered).set(target, values);
        Ok(revision.0)
    }

    /// Deletes an existing topic; objects in which nothing else is live are marked as garbage.
    pub(super) fn delete_topic(&mut self, id: TopicId) -> Result<(u64, Topic), Fault> {
        let topic = self.catalog.topics.remove(&id).expect("the caller found it");
        self.catalog.names.remove(&topic.name);
        let parts = topic.partitions.iter().flat_map(|p| p.parts.values());
        let parts = parts.map(|part| (part.object, part.size_bytes)).collect();
        let released = self.catalog.release(parts);
        let mut writes = self.released_writes(released);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let manifests = partition.manifests.values().cloned().collect();
            writes.extend(self.kill_manifests(PartitionId { topic: id, index }, manifests));
        }
        writes.push(Write::Delete(keys::topic(id)));
        writes.push(Write::Delete(keys::name(&topic.name)));
        for index in 0..topic.partitions.len() as i32 {
            let partition = PartitionId { topic: id, index };
            writes.push(Write::Delete(keys::head(partition)));
            if self.catalog.owners.remove(&partition).is_some() {
                writes.push(Write::Delete(keys::owner(partition)));
            }
        }
        let revision = self.write(vec![Compare::Revision(keys::topic(id), topic.revision)], &writes)?;
        self.operator_changes += 1;
        Ok((revision.0, topic))
    }
}
