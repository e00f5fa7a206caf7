//! A small Kubernetes API server of the virtnet.dev kinds, in one process and one file.
