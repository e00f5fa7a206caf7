//! What a DPU is to the agent: validated newtypes and the traits of its parts.
