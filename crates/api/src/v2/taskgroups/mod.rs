//! Task groups (oms.md §2.4). Their actions are PUTs, where those of tasks are POSTs: the contract has it so.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod retry;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod update;
