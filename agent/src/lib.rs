//! Bulkhead: network segmentation for Kubernetes.

pub mod dataplane;
pub mod policy;
