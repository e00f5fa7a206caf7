//! Validation of objects against a CRD's schema, with the verdicts and the words of kube-apiserver 1.36.
//!
//! An API server takes an object in these steps, and so does whoever uses [`Schema`]: decode, look for
//! [`unknown_fields`](Schema::unknown_fields) (strict) or [`prune`](Schema::prune) them,
//! [`apply_defaults`](Schema::apply_defaults), [`validate`](Schema::validate). Validation is structural first
//! (`structure`, `lists`); the CEL rules (`rules`) are left out where that found something they could not rely
//! on. The server's order of errors is random where several fields are wrong; here it is that of the fields.
//!
//! A whole number written with a fraction (`7.0`) counts as an integer, as on the server; there a rule that looks at
//! such a number from further up fails to evaluate, which is not imitated: neither kubectl nor kube-rs sends one.
//!
//! What a server checks outside of the schema is not here: metadata (see [`crate::validate`]), names, versions,
//! the size of the whole object, the cost of rules.

mod cel;
mod error;
mod lists;
mod node;
mod prior;
mod rules;
mod shape;
mod structure;

use serde_json::Value;

pub(crate) use error::NO_FIELD;
pub use error::{FieldError, FieldErrorKind};
pub use node::CompileError;
use node::Node;
use prior::Prior;

/// A compiled `openAPIV3Schema` of one version of a CRD. It can be shared between threads.
#[derive(Debug)]
pub struct Schema {
    root: Node,
}

impl Schema {
    /// Compiles the schema with its rules.
    ///
    /// # Errors
    /// [`CompileError`] where the schema is malformed or uses what this validator doesn't know (`allOf` and its
    /// kin, embedded resources, formats but `date-time`): passing it over would let objects in that a server
    /// refuses.
    pub fn compile(open_api_v3_schema: &Value) -> Result<Self, CompileError> {
        Ok(Self { root: Node::compile(open_api_v3_schema, "")? })
    }

    /// Paths of the fields that the schema doesn't know, sorted, as strict field validation names them: `spec.foo`,
    /// `spec.ports[0].bar`. `apiVersion`, `kind` and `metadata` at the root are always known.
    #[must_use]
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        shape::prune(&self.root, &mut object.clone())
    }

    /// Drops the fields that the schema doesn't know.
    pub fn prune(&self, object: &mut Value) {
        shape::prune(&self.root, object);
    }

    /// Drops nulls where null is not allowed, and gives absent fields their defaults.
    pub fn apply_defaults(&self, object: &mut Value) {
        shape::drop_nulls(&self.root, object);
        shape::defaults(&self.root, object);
    }

    /// Everything that is wrong with the object; empty where it is valid.
    ///
    /// `old` is the object before an update and None on creation. Both have gone through
    /// [`apply_defaults`](Self::apply_defaults). On an update, what was wrong before and is unchanged is forgiven,
    /// as servers from 1.30 on do.
    #[must_use]
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        structure::validate(&self.root, object, Prior::root(old), "", &mut errors);
        if !old.is_some_and(|old| has_duplicates(&self.root, old)) {
            lists::validate(&self.root, object, "", &mut errors);
        }
        if errors.iter().any(|error| error.kind.blocks_rules()) {
            errors.push(FieldError::invalid(
                NO_FIELD,
                Value::Null,
                "some validation rules were not checked because the object was invalid; \
                 correct the existing errors to complete validation",
            ));
        } else {
            rules::validate(&self.root, object, Prior::root(old), "", &mut errors);
        }
        errors
    }
}

fn has_duplicates(root: &Node, object: &Value) -> bool {
    let mut errors = Vec::new();
    lists::validate(root, object, "", &mut errors);
    !errors.is_empty()
}
