//! Bulkhead: network segmentation for Kubernetes.

pub mod lab;
pub mod links;
pub mod policy;
