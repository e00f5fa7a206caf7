//! The agent of one DPU: observe, plan, execute, report.
