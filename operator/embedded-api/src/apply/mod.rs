//! Server-side apply and the tracking of field ownership by every other write.
//!
//! The rules are those of the API machinery's structured merge: a manager owns what it last stated; a field that
//! an applier leaves out goes where nobody else owns it; changing what another owns is a conflict unless forced.

mod conform;
mod field_set;
mod managers;
mod merge;
mod typed;
mod walk;

use serde_json::{Value, json};

use crate::object;
use crate::path::Part;
use crate::registry::{Form, Resource};
use crate::status::{ApiError, Cause};
use field_set::{Element, FieldSet, path_text};
use managers::{Manager, Managers, Operation, Owned};
use typed::Type;
use walk::Comparison;

/// The owner of what an object held before anybody was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose client-side applies are taken over by its server-side ones.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, through which part of the object, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) part: Part,
    pub(crate) manager: &'a str,
    pub(crate) time: &'a str,
}

/// Records in `new` what an update changed; `live` is absent at creation.
pub(crate) fn track_update(
    writer: Writer<'_>,
    live: Option<&Value>,
    new: &mut Value,
) -> Result<(), ApiError> {
    let stated = if writer.part == Part::Main { managers::decode(new) } else { None };
    let held = live.map_or_else(|| Some(Managers::new()), managers::decode).unwrap_or_default();
    let mut managers = match stated {
        _ if writer.part == Part::Main && managers::is_reset(new) => Managers::new(),
        Some(stated) if !stated.is_empty() => stated,
        _ => held,
    };
    object::unset(new, "managedFields");
    if live.is_some() && managers.is_empty() {
        // Nobody tracked this object so far; the first apply will begin.
        return Ok(());
    }

    let empty = writer.empty_object();
    let before = untracked(live.unwrap_or(&empty));
    writer.own_changes(&mut managers, &before, new, Operation::Update, writer.manager)?;
    managers::cap(&mut managers);
    managers::encode(&managers, new);
    Ok(())
}

/// The object that results from applying `config` to `live`, with ownership recorded.
///
/// # Errors
/// 409 with a cause for each field that another manager owns with another value, unless forced; 500, as upstream, for a
/// configuration that doesn't fit the types.
pub(crate) fn apply(
    writer: Writer<'_>,
    live: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, ApiError> {
    writer.check_types(config)?;
    let stated_config = config;
    let empty = writer.empty_object();
    let before = untracked(live.unwrap_or(&empty));
    let mut managers = live.map_or_else(|| Some(Managers::new()), managers::decode).unwrap_or_default();
    if live.is_some() && managers.is_empty() {
        writer.own_changes(&mut managers, &empty, &before, Operation::Update, BEFORE_FIRST_APPLY)?;
    }

    let schema = writer.schema();
    let me = writer.identity(Operation::Apply, writer.manager);
    let mut stated = walk::field_set(schema, config)?;
    writer.keep_own_part(&mut stated);
    let last = managers.get(&me).cloned();
    let mut config = config.clone();
    writer.keep_own_values(&mut config, &before);

    let merged = merge::merge(schema, &before, &config)?;
    let time = last.as_ref().and_then(|last| last.time.clone());
    let mine = Owned { set: stated, api_version: writer.resource.api_version(), time };
    managers.insert(me.clone(), mine);
    let mut new = match &last {
        Some(last) => prune(schema, &merged, &managers, &last.set)?,
        None => merged,
    };

    let comparison = walk::compare(schema, &before, &new)?;
    let conflicts = conflicts(&managers, &me, &comparison);
    if !conflicts.is_empty() && !force && !taken_over(writer, &before, &conflicts)? {
        return Err(conflict_error(&conflicts));
    }
    disown(&mut managers, &me, &comparison);
    strip(&mut managers, &me);
    // As upstream, who changes nothing leaves the time as it was, even where that is none.
    if let Some(mine) = managers.get_mut(&me)
        && before != new
    {
        mine.time = Some(writer.time.to_owned());
    }
    if writer.manager == KUBECTL {
        renew_last_applied(&mut new, stated_config);
    }
    managers::encode(&managers, &mut new);
    Ok(new)
}

/// Where kubectl has applied on its side before, the record of that says what it applies now on ours.
fn renew_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let record = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED));
    if let Some(record) = record {
        *record = format!("{config}\n").into();
    }
}

impl<'a> Writer<'a> {
    fn schema(&self) -> Type<'a> {
        Type::new(&self.resource.structure)
    }

    fn check_types(&self, config: &Value) -> Result<(), ApiError> {
        let faults = conform::faults(self.schema(), config);
        let why = match faults.as_slice() {
            [] => return Ok(()),
            [fault] => fault.clone(),
            faults => format!("errors:\n  {}", faults.join("\n  ")),
        };
        let Resource { kind, .. } = self.resource;
        let (namespace, name) = (object::namespace(config), object::name(config));
        let message = format!(
            "failed to create typed patch object ({namespace}/{name}; {}, Kind={kind}): {why}",
            self.resource.api_version()
        );
        Err(ApiError::new(500, "", message))
    }

    fn empty_object(&self) -> Value {
        let mut empty = json!({ "apiVersion": self.resource.api_version(), "kind": self.resource.kind });
        // Objects of kinds that are compiled into a server always have a spec.
        if self.resource.form != Form::Custom && self.schema().declares("spec") {
            empty["spec"] = json!({});
        }
        empty
    }

    fn identity(&self, operation: Operation, name: &str) -> Manager {
        Manager::new(operation, name, self.part.name(), &self.resource.api_version())
    }

    /// Drops what can't be written through this part of the object.
    fn keep_own_part(&self, set: &mut FieldSet) {
        match self.part {
            Part::Status => set.retain_top(|field| field == "status"),
            Part::Main | Part::Scale if self.resource.status => set.retain_top(|field| field != "status"),
            Part::Main | Part::Scale => {}
        }
    }

    /// As `keep_own_part`, for the configuration itself; through `status`, metadata serves as a precondition only.
    fn keep_own_values(&self, config: &mut Value, live: &Value) {
        let fields = object::map_mut(config);
        match self.part {
            Part::Status => {
                fields.retain(|field, _| field == "status" || field == "apiVersion" || field == "kind");
                if let Some(metadata) = live.get("metadata") {
                    fields.insert("metadata".to_owned(), metadata.clone());
                }
            }
            Part::Main | Part::Scale if self.resource.status => {
                fields.remove("status");
            }
            Part::Main | Part::Scale => {}
        }
    }

    /// Gives a manager what changed between two objects, taking it from all others.
    fn own_changes(
        &self,
        managers: &mut Managers,
        before: &Value,
        after: &Value,
        operation: Operation,
        name: &str,
    ) -> Result<(), ApiError> {
        let mut comparison = walk::compare(self.schema(), before, after)?;
        for set in [&mut comparison.added, &mut comparison.modified, &mut comparison.removed] {
            self.keep_own_part(set);
        }
        let me = self.identity(operation, name);
        let current = comparison.added.union(&comparison.modified);
        // As upstream, the writer's own earlier entry loses what it changed like anybody's, and then gets it back.
        let nobody = Manager { name: String::new(), ..me.clone() };
        disown(managers, &nobody, &comparison);
        let earlier = managers.remove(&me);
        let mut own = Managers::from([(
            me.clone(),
            Owned {
                set: current,
                api_version: self.resource.api_version(),
                time: Some(self.time.to_owned()),
            },
        )]);
        strip(&mut own, &me);
        match (own.remove(&me), earlier) {
            (Some(own), Some(earlier)) => {
                managers.insert(me, Owned { set: own.set.union(&earlier.set), ..own });
            }
            (Some(held), None) | (None, Some(held)) => {
                managers.insert(me, held);
            }
            (None, None) => {}
        }
        Ok(())
    }
}

fn untracked(object: &Value) -> Value {
    let mut object = object.clone();
    if object.get("metadata").is_some() {
        object::unset(&mut object, "managedFields");
    }
    object
}

/// Removes what the applier stated last time and no longer does, unless somebody owns it.
fn prune(schema: Type<'_>, merged: &Value, managers: &Managers, last: &FieldSet) -> Result<Value, ApiError> {
    if last.is_empty() {
        return Ok(merged.clone());
    }
    let whole = |set: &FieldSet| {
        let named =
            |at: Type<'_>, element: &Element| matches!(element, Element::Field(name) if at.declares(name));
        let below = |at, element: &Element| Type::below(at, element);
        set.with_named_members(schema, &named, &below)
    };
    let last = whole(last);
    let all = whole(&walk::field_set(schema, merged)?);
    let owned = managers.values().fold(FieldSet::default(), |all, one| all.union(&one.set));

    let pruned = walk::remove(schema, merged, &last)?;
    let keep = whole(&walk::field_set(schema, &pruned)?).union(&whole(&owned));
    let pruned = walk::remove(schema, merged, &all.difference(&keep))?;
    // What was in a removed parent and never was the applier's stays.
    let keep = whole(&walk::field_set(schema, &pruned)?);
    walk::remove(schema, merged, &all.difference(&keep).intersection(&last))
}

fn conflicts<'m>(
    managers: &'m Managers,
    me: &Manager,
    comparison: &Comparison,
) -> Vec<(&'m Manager, Vec<Element>)> {
    let changed = comparison.added.union(&comparison.modified);
    let mut others: Vec<_> = managers.iter().filter(|(manager, _)| *manager != me).collect();
    others.sort_by_key(|(manager, _)| (&manager.name, manager.operation, &manager.subresource));
    others
        .into_iter()
        .flat_map(|(manager, owned)| {
            owned.set.intersection(&changed).paths().into_iter().map(move |path| (manager, path))
        })
        .collect()
}

/// Whether all conflicts are with what kubectl itself applied client-side, as its annotation still says.
fn taken_over(
    writer: Writer<'_>,
    live: &Value,
    conflicts: &[(&Manager, Vec<Element>)],
) -> Result<bool, ApiError> {
    let annotation = live.pointer("/metadata/annotations").and_then(|all| all.get(LAST_APPLIED));
    let last = annotation.and_then(Value::as_str).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(|_| writer.manager == KUBECTL) else { return Ok(false) };
    if last.get("apiVersion") != Some(&writer.resource.api_version().into()) {
        return Ok(false);
    }
    let comparison = walk::compare(writer.schema(), &last, live)?;
    let mut allowed = walk::field_set(writer.schema(), &last)?;
    for changed in [&comparison.added, &comparison.modified, &comparison.removed] {
        allowed = allowed.difference(changed);
    }
    let allowed = allowed.paths();
    Ok(conflicts.iter().all(|(_, path)| allowed.contains(path)))
}

fn conflict_error(conflicts: &[(&Manager, Vec<Element>)]) -> ApiError {
    let causes: Vec<Cause> = conflicts
        .iter()
        .map(|(manager, path)| {
            let message = format!("conflict with {}", manager.words());
            Cause::new("FieldManagerConflict", path_text(path), message)
        })
        .collect();
    let message = match conflicts {
        [(manager, path)] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", manager.words(), path_text(path))
        }
        _ => {
            let mut lines = Vec::new();
            for (index, (manager, path)) in conflicts.iter().enumerate() {
                if index == 0 || conflicts[index - 1].0 != *manager {
                    lines.push(format!("conflicts with {}:", manager.words()));
                }
                lines.push(format!("- {}", path_text(path)));
            }
            format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
        }
    };
    ApiError::apply_conflict(message, &causes)
}

/// Takes from all others what changed or went.
fn disown(managers: &mut Managers, me: &Manager, comparison: &Comparison) {
    let changed = comparison.added.union(&comparison.modified);
    for (_, owned) in managers.iter_mut().filter(|(manager, _)| *manager != me) {
        owned.set = owned.set.difference(&changed);
    }
    for owned in managers.values_mut() {
        owned.set = owned.set.difference(&comparison.removed);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
}

/// Fields that nobody owns: what identifies the object and what only the server sets.
fn strip(managers: &mut Managers, me: &Manager) {
    let top = |name: &str| Element::Field(name.to_owned());
    let mut unowned = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        unowned.insert(&[top(name)]);
    }
    let server = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    for name in server {
        unowned.insert(&[top("metadata"), top(name)]);
    }
    if let Some(owned) = managers.get_mut(me) {
        owned.set = owned.set.difference(&unowned);
        if owned.set.is_empty() {
            managers.remove(me);
        }
    }
}
