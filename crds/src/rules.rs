//! The CEL rules that kinds share, each with the message a person reads.
//!
//! `function` is a word of CEL's own, so its field is written `__function__`. Rules keep to what both the API
//! server and the offline evaluation know: no `math`, no optional syntax, no two-variable macros.

use kube::core::Rule;

/// `spec.function` may not change once the object exists.
pub(crate) fn function_is_immutable() -> Rule {
    Rule::new("self.spec.__function__ == oldSelf.spec.__function__")
        .message("function is immutable")
        .field_path(".spec.function")
}

/// `spec.dpu` may not change while a function stands on the present DPU.
pub(crate) fn dpu_is_fixed_while_function_exists() -> Rule {
    Rule::new(
        "!has(oldSelf.status) || !has(oldSelf.status.__function__) || \
         (has(self.spec.dpu) ? self.spec.dpu : '') == (has(oldSelf.spec.dpu) ? oldSelf.spec.dpu : '')",
    )
    .message("dpu may change only while status.function is absent: the function exists on the present DPU")
    .field_path(".spec.dpu")
}

/// Each device of a set bears the set's name as a label.
pub(crate) fn set_name_is_a_label_value() -> Rule {
    Rule::new("!has(self.metadata.name) || self.metadata.name.size() <= 63")
        .message("the name of a set must be no longer than 63 characters: its devices bear it as a label")
}

/// A device names its DPU or says which ones it may be bound to.
pub(crate) fn dpu_or_selector() -> Rule {
    Rule::new("has(self.dpu) || has(self.dpuSelector)")
        .message("dpu or dpuSelector is required: name a Dpu or select some by their labels")
}

/// The name of a Dpu is that of an object, and becomes a part of requests. Of an empty one its length tells.
pub(crate) fn dpu_is_a_name() -> Rule {
    Rule::new(r"self == '' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message(
        "dpu must be the name of a Dpu: lowercase letters, digits, '-' and '.', beginning and ending with a letter or digit",
    )
}

/// One MSI-X vector is for the configuration, so the queues must be fewer than the vectors.
pub(crate) fn queues_below_msix() -> Rule {
    Rule::new("!has(self.queues) || !has(self.queues.max) || !has(self.msix) || self.queues.max < self.msix")
        .message("queues.max must be less than msix")
        .field_path(".queues.max")
}

/// Only a hot-plugged function can be plugged again.
pub(crate) fn always_needs_hotplug() -> Rule {
    Rule::new("self.rebindPolicy != 'Always' || has(self.__function__.hotplug)")
        .message("rebindPolicy Always is allowed only with function.hotplug; use Never or IfIdle")
        .field_path(".rebindPolicy")
}

/// Six octets in hexadecimal, with colons.
pub(crate) fn mac_is_well_formed() -> Rule {
    Rule::new("self.matches('^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$')").message(
        "mac must be six pairs of hexadecimal digits with colons between them, such as 0c:c4:7a:ff:22:93",
    )
}

/// The lowest bit of the first octet is the group bit.
pub(crate) fn mac_is_unicast() -> Rule {
    Rule::new("!self.matches('^[0-9a-fA-F][13579bBdDfF]:')")
        .message("mac must be unicast: the second digit must be even")
}

/// All zero is no address.
pub(crate) fn mac_is_not_zero() -> Rule {
    Rule::new("self != '00:00:00:00:00:00'").message("mac must not be all zero")
}

/// A function is hot-plugged, static or a VF.
pub(crate) fn one_function() -> Rule {
    Rule::new("[has(self.hotplug), has(self.static), has(self.vf)].exists_one(x, x)")
        .message("function must have exactly one of hotplug, static and vf")
}
