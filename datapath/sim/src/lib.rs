//! A DPU and its host in memory.
