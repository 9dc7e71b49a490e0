//! Bugs that the simulator's checkers must catch: each is a mistake that looks harmless. Compiled only with the feature
//! `planted-bugs`.

/// Which bug is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// I1: the leader alone acknowledges.
    LeaderAloneCommits,
    /// I1: acknowledged before it is persisted.
    AckBeforePersist,
    /// I1: a commit without all confirmations of the bytes.
    CommitWithoutAll,
    /// I2: a merge keeps only the winner.
    DropLosers,
    /// I4: a member answers Collect and goes on serving the old epoch.
    NoPromise,
    /// I4: the promised epoch is forgotten in a crash.
    EpochNotPersisted,
    /// I6: a stale token commits.
    NoFencing,
    /// I6: a directory's lock keeps nobody below it out.
    FlatLocks,
    /// I9: repeats are applied again.
    NoDedupe,
    /// I10: the parts of a rename are logged and take effect one by one.
    HalfRename,
    /// I8: stamps are bare wall clocks.
    WallClock,
    /// I2: the log loses records that are not in the index yet.
    TruncatedTooEarly,
    /// I2: an index that is taken over takes nothing away.
    TransferKeepsAll,
    /// I8: a delete is collected before all nodes know of it.
    DeleteForgotten,
    /// I5: a leader without a lease answers reads.
    StaleReads,
    /// I1: appended bytes go to nodes that lack what they go on.
    AppendAnywhere,
    /// I9: the repeat of an append is applied again.
    AppendTwice,
    /// I9: repair logs a version again instead of moving it.
    RepairRestamps,
    /// I3: extents count as merged as soon as one node has merged them.
    MergeTooEarly,
    /// I3: a surplus copy is dropped before the others said that they have theirs.
    SurplusTooEarly,
    /// I3: nothing moves from a node that is drained.
    DrainIgnored,
    /// I3: all copies of a version stay in one zone.
    ZonesIgnored,
    /// I3: a copy that is known to be bad counts like a good one.
    BadCopiesCount,
}
