//! The virtio-net controller's engine over a device model.
