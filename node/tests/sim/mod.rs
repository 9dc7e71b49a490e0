//! A deterministic simulator of whole members: virtual time, modelled links and disks, faults, clients and checkers. The
//! members are the product's code; everything around them is here. It never touches the network, a file or a real clock.

pub(crate) mod check;
pub(crate) mod clients;
pub(crate) mod crowd;
pub(crate) mod disk;
pub(crate) mod faults;
pub(crate) mod history;
pub(crate) mod nemesis;
pub(crate) mod net;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod rng;
pub(crate) mod runner;
pub(crate) mod shorten;
pub(crate) mod topology;
pub(crate) mod totals;
pub(crate) mod uploads;
pub(crate) mod world;
