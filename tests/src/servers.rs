//! The servers that Gantry stands on: the real ones.

pub mod etcd;
pub mod remoting;
pub mod rocketmq;
