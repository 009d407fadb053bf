//! Bulkhead: network segmentation for Kubernetes.

pub mod dataplane;
pub mod drops;
pub mod health;
pub mod http;
pub mod metrics;
pub mod lab;
pub mod links;
pub mod policy;
