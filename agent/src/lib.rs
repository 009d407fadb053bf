//! Bulkhead: network segmentation for Kubernetes.

pub mod metrics;
pub mod policy;
