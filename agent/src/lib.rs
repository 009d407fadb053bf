//! Bulkhead: network segmentation for Kubernetes.

pub mod api;
pub mod convert;
pub mod manifests;
pub mod policy;
