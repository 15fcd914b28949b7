//! A member of a classic group.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thalweg_record::Mono;

use super::{
    request::{DescribedMember, JoinRequest, JoinedMember},
    state::Ticket,
};

/// A member: what it said when it joined, what it was assigned, and what it waits for.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    /// Set for static members (KIP-345).
    pub(super) instance: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// By preference.
    pub(super) protocols: Vec<(Arc<str>, Bytes)>,
    pub(super) assignment: Bytes,
    /// When it is removed unless it is heard of before; without effect while [`Member::can_expire`] is false.
    pub(super) alive_until: Mono,
    /// It joins for the first time: it may not know its id yet, so nothing but this parked join is heard of it.
    pub(super) is_new: bool,
    pub(super) parked_join: Option<Ticket>,
    pub(super) parked_sync: Option<Ticket>,
}

impl Member {
    pub(super) fn new(id: Arc<str>, request: JoinRequest) -> Member {
        Member {
            id,
            instance: request.instance,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout: millis(request.session_timeout_ms),
            rebalance_timeout: millis(request.rebalance_timeout_ms),
            protocols: request.protocols,
            assignment: Bytes::new(),
            alive_until: Mono::default(),
            is_new: true,
            parked_join: None,
            parked_sync: None,
        }
    }

    /// A member parked in a rebalance is alive by definition, except a new one whose client may be gone unnoticed.
    pub(super) fn can_expire(&self) -> bool {
        self.is_new || (self.parked_join.is_none() && self.parked_sync.is_none())
    }

    pub(super) fn is_awaiting_join(&self) -> bool {
        self.parked_join.is_some()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| &**name == protocol)
    }

    /// Its metadata for `protocol`, empty if it has none.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| &**name == protocol).map(|(_, m)| m.clone()).unwrap_or_default()
    }

    pub(super) fn joined(&self, protocol: &str) -> JoinedMember {
        JoinedMember { id: self.id.clone(), instance: self.instance.clone(), metadata: self.metadata(protocol) }
    }

    /// Its description, with the metadata for `protocol` when there is one to show.
    pub(super) fn describe(&self, protocol: Option<&str>) -> DescribedMember {
        DescribedMember {
            id: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            metadata: protocol.map(|p| self.metadata(p)).unwrap_or_default(),
            assignment: self.assignment.clone(),
        }
    }
}

/// A timeout as sent; a negative one is none at all.
pub(super) fn millis(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
