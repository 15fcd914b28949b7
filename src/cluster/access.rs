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

/// The most that all rules may count for together, in bytes: every edge has them in memory, and one answer may tell them all.
const MAX_RULES_BYTES: usize = 32 << 20;
/// The most filters of one request, for each is held against all rules.
const MAX_FILTERS: usize = 100;
/// The most credentials there may be: each change copies them for the edges.
const MAX_CREDENTIALS: usize = 10_000;

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
    fn access_changed(&mut self) {
        self.operator_changes += 1;
        self.access_changes += 1;
    }

    /// Stores a rule that is not there.
    fn create_acl(&mut self, rule: AclBinding, id: [u8; 16]) -> Result<u64, Fault> {
        let put = Write::Put(keys::acl(id), schema::encode(&rule));
        let revision = self.write(vec![Compare::Absent(keys::acl(id))], &[put])?;
        self.access_changed();
        self.catalog.acl_bytes += rule.charged_bytes();
        self.catalog.acls.insert(rule, id);
        Ok(revision.0)
    }

    /// Deletes rules that are there.
    fn delete_acls(&mut self, rules: &BTreeSet<AclBinding>) -> Result<u64, Fault> {
        let ids = rules.iter().map(|rule| self.catalog.acls[rule]);
        let deletes: Vec<Write> = ids.map(|id| Write::Delete(keys::acl(id))).collect();
        let revision = self.write(Vec::new(), &deletes)?;
        self.access_changed();
        for rule in rules {
            self.catalog.acls.remove(rule);
            self.catalog.acl_bytes -= rule.charged_bytes();
        }
        Ok(revision.0)
    }

    /// Sets and deletes credentials of a user, in one transaction.
    fn set_scram(&mut self, user: &str, changes: BTreeMap<Mechanism, ScramChange>) -> Result<u64, Fault> {
        let write = |(mechanism, change): (&Mechanism, &ScramChange)| {
            let key = keys::scram(*mechanism, user);
            match change {
                ScramChange::Set(credential) => Write::Put(key, schema::encode(credential)),
                ScramChange::Delete => Write::Delete(key),
            }
        };
        let writes: Vec<Write> = changes.iter().map(write).collect();
        let revision = self.write(Vec::new(), &writes)?;
        self.access_changed();
        for (mechanism, change) in changes {
            let whose = (user.to_owned(), mechanism);
            match change {
                ScramChange::Set(credential) => drop(self.catalog.scram.insert(whose, credential)),
                ScramChange::Delete => drop(self.catalog.scram.remove(&whose)),
            }
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
        if ledger.catalog.acl_bytes + rule.charged_bytes() > MAX_RULES_BYTES {
            let why = format!("All access rules together may have {MAX_RULES_BYTES} bytes.");
            return Ok(Err(ControlError::TooMany(why)));
        }
        if let Err(full) = self.may_grow() {
            return Ok(Err(full));
        }
        let revision = ledger.create_acl(rule, ids::uuid(random))?;
        self.written(revision);
        self.acls = true;
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
            let bytes: usize = rules.clone().map(AclBinding::charged_bytes).sum();
            room = room.checked_sub(bytes).ok_or_else(too_many)?;
            Ok(rules.cloned().collect())
        };
        let meant: Vec<Result<Vec<AclBinding>, _>> = filters.iter().enumerate().map(&mut meant).collect();
        let all: BTreeSet<AclBinding> = meant.iter().flatten().flatten().cloned().collect();
        if !all.is_empty() {
            let revision = ledger.delete_acls(&all)?;
            self.written(revision);
            self.acls = true;
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
        let exists = |mechanism: &Mechanism| known.contains_key(&(user.to_owned(), *mechanism));
        let (deleted, set): (Vec<_>, Vec<_>) =
            changes.iter().partition(|(_, change)| matches!(change, ScramChange::Delete));
        if !deleted.iter().all(|(mechanism, _)| exists(mechanism)) {
            let why = "Attempt to delete a user credential that does not exist";
            return Ok(Err(ControlError::UnknownCredential(why.to_owned())));
        }
        let new = set.iter().filter(|(mechanism, _)| !exists(mechanism)).count();
        if new > 0 && known.len() + new - deleted.len() > MAX_CREDENTIALS {
            return Ok(Err(ControlError::TooMany(format!("There may be {MAX_CREDENTIALS} credentials."))));
        }
        match self.may_grow() {
            Err(full) if !set.is_empty() => return Ok(Err(full)),
            _ => {}
        }
        let revision = ledger.set_scram(user, changes)?;
        self.written(revision);
        self.scram = true;
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests;
