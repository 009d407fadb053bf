//! What the tests share.
//!
//! - [`arbitrary`]: random frames,
//! - [`conformance`]: recorded cases of who reaches whom,
//! - [`pod`]: a pod and its policy, as the maps hold them,
//! - [`program`]: the loaded programs, run on single packets,
//! - [`user_space`]: the verdict without them,
//! - [`statistics`]: medians, and how sure they are.
//!
//! To hold them against random packets:
//!
//! - [`choices`]: where a generator's decisions come from,
//! - [`crafted`]: frames that are hard to judge,
//! - [`reading`]: a second reading of a frame's headers,
//! - [`model`]: the verdict that this reading and a slow, obvious policy lead to,
//! - [`differential`]: the programs, `decide` and the model, packet by packet,
//! - [`fuzz`]: what the fuzzers call, and the replay of what they found.
//!
//! And for real packets between network namespaces:
//!
//! - [`burst`]: many flows at once,
//! - [`cluster`]: a node with pods, manifests, and the agent,
//! - [`driven`]: the agent without its loop,
//! - [`dump`]: what `tcpdump` says of them,
//! - [`scrape`]: what the agent's pages say,
//! - [`probe`]: what an application in a pod sees,
//! - [`stack`]: connections through Bulkhead, and through others that enforce policies,
//! - [`station`]: one end of such flows,
//! - [`stream`]: steady traffic of which no bit may be lost,
//! - [`translation`]: services, as a proxy translates them,
//! - [`wire`]: whole frames, sent and captured.

pub mod arbitrary;
pub mod burst;
pub mod choices;
pub mod cluster;
pub mod conformance;
pub mod crafted;
pub mod differential;
pub mod driven;
pub mod dump;
pub mod fuzz;
pub mod model;
pub mod pod;
pub mod probe;
pub mod program;
pub mod reading;
pub mod scrape;
pub mod stack;
pub mod station;
pub mod statistics;
pub mod stream;
pub mod translation;
pub mod user_space;
pub mod wire;
