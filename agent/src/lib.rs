//! Bulkhead: network segmentation for Kubernetes.
//!
//! What flows where: [`manifests`] and [`links`] tell of the cluster and of this node, [`agent`]
//! hands both to the [`enforcer`], which compiles [`policy`], finds each pod's interface
//! ([`endpoint`]) and brings the [`dataplane`] to it. Out of the kernel come counters
//! ([`metrics`]) and [`drops`]; [`http`] serves them, and [`health`].

pub mod agent;
pub mod api;
pub mod command;
pub mod convert;
pub mod dataplane;
pub mod drops;
pub mod endpoint;
pub mod enforcer;
pub mod health;
pub mod http;
pub mod lab;
pub mod links;
pub mod manifests;
pub mod metrics;
pub mod policy;
pub mod reach;
