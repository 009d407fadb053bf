//! Bulkhead: network segmentation for Kubernetes.

pub mod policy;
