//! The closed sets of words that stand in labels. Words are part of what users query: a word is
//! never renamed, and never used for something else.

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])+ $variant,)+ }

        impl $name {
            /// Every value, in the order of the source.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that stands in the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// How far a pod of this node has come.
    EndpointState {
        /// Programs and policy are in place.
        Attached => "attached",
        /// Its interface has not been found yet.
        Pending => "pending",
        /// The programs could not be attached; it is tried again.
        Failed => "failed",
        /// An interface that is nobody's for sure, or whose pod is gone: nothing passes but what the
        /// own node sends or receives.
        Closed => "closed",
    }
}

words! {
    /// A map of the kernel whose fill is watched.
    Map {
        /// Pods of this node, by interface.
        Endpoints => "endpoints",
        /// IPv4 addresses that some policy of this node asks about.
        PeersV4 => "peers_v4",
        /// IPv6 addresses that some policy of this node asks about.
        PeersV6 => "peers_v6",
        /// IPv4 prefixes at which what the policies of this node say about addresses changes.
        CidrsV4 => "cidrs_v4",
        /// IPv6 prefixes at which what the policies of this node say about addresses changes.
        CidrsV6 => "cidrs_v6",
        /// Pairs of policy set and identity that allow something.
        Rules => "rules",
        /// Port ranges of all rules.
        PortRanges => "port_ranges",
    }
}

words! {
    /// What became of the record of a dropped packet. (The packet itself is counted in any case.)
    DropEventOutcome {
        /// It stands in the log.
        Logged => "logged",
        /// The kernel did not write it: the pod's budget for this second was used up, or the ring
        /// buffer between kernel and agent was full.
        SuppressedKernel => "suppressed_kernel",
        /// The agent did not log it: the log's rate limit was reached.
        SuppressedLog => "suppressed_log",
    }
}
