//! Access rules and SCRAM credentials: in the ledger, and what control does to them. Durable after the next sync.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    control_msg::ControlError,
    control_turn::{Outcome, Turn},
    ids::{self, Random},
    keys,
    ledger::{Fault, Ledger},
    schema,
    store::{Compare, Write},
};
use crate::auth::{
    AclBinding, AclFilter,
    scram::{Mechanism, ScramCredential},
};

/// The most texts that all rules may have together, in bytes: every edge has them in memory, and one answer may tell them all.
const MAX_RULES_BYTES: usize = 32 << 20;
/// The most filters of one request, for each is held against all rules.
const MAX_FILTERS: usize = 1_000;
/// The most credentials there may be.
const MAX_CREDENTIALS: usize = 100_000;

/// SCRAM credentials by user and mechanism.
pub type ScramCredentials = BTreeMap<(String, Mechanism), ScramCredential>;

/// What becomes of a credential.
#[derive(Clone, Debug)]
pub enum ScramChange {
    /// It is set, whether there was one or not.
    Set(ScramCredential),
    /// It is deleted.
    Delete,
}

impl Ledger {
    /// Stores a rule that is not there.
    fn create_acl(&mut self, rule: AclBinding, id: [u8; 16]) -> Result<u64, Fault> {
        let put = Write::Put(keys::acl(id), schema::encode(&rule));
        let revision = self.write(vec![Compare::Absent(keys::acl(id))], &[put])?;
        self.operator_changes += 1;
        self.catalog.acl_bytes += rule.text_bytes();
        self.catalog.acls.insert(rule, id);
        Ok(revision.0)
    }

    /// Deletes rules that are there.
    fn delete_acls(&mut self, rules: &BTreeSet<AclBinding>) -> Result<u64, Fault> {
        let ids = rules.iter().map(|rule| self.catalog.acls[rule]);
        let deletes: Vec<Write> = ids.map(|id| Write::Delete(keys::acl(id))).collect();
        let revision = self.write(Vec::new(), &deletes)?;
        self.operator_changes += 1;
        for rule in rules {
            self.catalog.acls.remove(rule);
            self.catalog.acl_bytes -= rule.text_bytes();
        }
        Ok(revision.0)
    }

    /// Sets a credential, or deletes one.
    fn set_scram(&mut self, user: (String, Mechanism), change: ScramChange) -> Result<u64, Fault> {
        let key = keys::scram(user.1, &user.0);
        let write = match &change {
            ScramChange::Set(credential) => Write::Put(key, schema::encode(credential)),
            ScramChange::Delete => Write::Delete(key),
        };
        let revision = self.write(Vec::new(), &[write])?;
        self.operator_changes += 1;
        match change {
            ScramChange::Set(credential) => drop(self.catalog.scram.insert(user, credential)),
            ScramChange::Delete => drop(self.catalog.scram.remove(&user)),
        }
        Ok(revision.0)
    }
}

impl Turn {
    /// Creates a rule, unless it is there.
    pub(super) fn create_acl(&mut self, ledger: &mut Ledger, rule: AclBinding, random: &mut Random) -> Outcome<()> {
        if let Err(why) = rule.check() {
            return Ok(Err(ControlError::InvalidRequest(why)));
        }
        if ledger.catalog.acls.contains_key(&rule) {
            return Ok(Ok(()));
        }
        if ledger.catalog.acl_bytes + rule.text_bytes() > MAX_RULES_BYTES {
            let why = format!("All access rules together may have {MAX_RULES_BYTES} bytes.");
            return Ok(Err(ControlError::TooMany(why)));
        }
        let revision = ledger.create_acl(rule, ids::uuid(random))?;
        self.access_written(revision);
        Ok(Ok(()))
    }

    /// Deletes what the filters mean, and answers that for each. Told again and again, rules would make a giant answer to a small
    /// request: a filter that is one too many is refused, and deletes nothing.
    pub(super) fn delete_acls(
        &mut self,
        ledger: &mut Ledger,
        filters: &[AclFilter],
    ) -> Result<Vec<Result<Vec<AclBinding>, ControlError>>, Fault> {
        let mut room = MAX_RULES_BYTES;
        let mut meant = |(place, filter): (usize, &AclFilter)| {
            let too_many = || ControlError::TooMany("These are too many filters for one request.".to_owned());
            if place >= MAX_FILTERS {
                return Err(too_many());
            }
            let rules = ledger.catalog.acls.keys().filter(|rule| filter.matches(rule));
            let bytes: usize = rules.clone().map(AclBinding::text_bytes).sum();
            room = room.checked_sub(bytes).ok_or_else(too_many)?;
            Ok(rules.cloned().collect())
        };
        let meant: Vec<Result<Vec<AclBinding>, _>> = filters.iter().enumerate().map(&mut meant).collect();
        let all: BTreeSet<AclBinding> = meant.iter().flatten().flatten().cloned().collect();
        if !all.is_empty() {
            let revision = ledger.delete_acls(&all)?;
            self.access_written(revision);
        }
        Ok(meant)
    }

    /// Sets and deletes credentials of one user: all, or none.
    pub(super) fn alter_scram(
        &mut self,
        ledger: &mut Ledger,
        user: &str,
        changes: BTreeMap<Mechanism, ScramChange>,
    ) -> Outcome<()> {
        let known = &ledger.catalog.scram;
        for (mechanism, change) in &changes {
            let exists = known.contains_key(&(user.to_owned(), *mechanism));
            match change {
                ScramChange::Delete if !exists => {
                    let why = "Attempt to delete a user credential that does not exist";
                    return Ok(Err(ControlError::UnknownCredential(why.to_owned())));
                }
                ScramChange::Set(_) if !exists && known.len() >= MAX_CREDENTIALS => {
                    return Ok(Err(ControlError::TooMany(format!("There may be {MAX_CREDENTIALS} credentials."))));
                }
                _ => {}
            }
        }
        for (mechanism, change) in changes {
            let revision = ledger.set_scram((user.to_owned(), mechanism), change)?;
            self.access_written(revision);
        }
        Ok(Ok(()))
    }

    fn access_written(&mut self, revision: u64) {
        self.written(revision);
        self.access = true;
    }
}

#[cfg(test)]
mod tests;
