//! The events of the YAML parser put together to a tree whose nodes know their lines.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{YamlError, scalar};

/// A node and the line where it begins, counted from 1 in the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) tree: Tree,
}

#[derive(Clone, Debug)]
pub(super) enum Tree {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The line of the key.
    pub(super) line: usize,
    pub(super) value: Node,
}

/// Nodes that one document may have once aliases are replaced. A manifest of 1 MiB, the most a server takes, has
/// fewer.
const NODES_MAX: usize = 500_000;
/// How deep a document may be nested.
const DEPTH_MAX: usize = 100;

/// Reads the one document in `text`, which follows `lines_before` lines of the file; None where it is empty.
pub(super) fn read(text: &str, lines_before: usize) -> Result<Option<Node>, YamlError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        lines_before,
        anchors: BTreeMap::new(),
        nodes: 0,
        last_line: lines_before + 1,
    };
    let mut document = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event if document.is_none() => document = Some(reader.node(event, span, 0)?),
            _ => return Err(reader.error(span, "begin a further document with a line ---")),
        }
    }
    Ok(document.filter(|document| !matches!(document.tree, Tree::Scalar(Value::Null))))
}

struct Reader<'t> {
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    lines_before: usize,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    last_line: usize,
}

impl<'t> Reader<'t> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, YamlError> {
        loop {
            match self.parser.next() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => {
                    self.last_line = self.line(span);
                    return Ok(Some((event, span)));
                }
                Some(Err(error)) => {
                    let line = self.lines_before + error.marker().line();
                    return Err(YamlError { line, message: error.info() });
                }
            }
        }
    }

    fn next_in_collection(&mut self) -> Result<(Event<'t>, Span), YamlError> {
        let end = YamlError { line: self.last_line, message: "the document ends too early".to_owned() };
        self.next()?.ok_or(end)
    }

    fn line(&self, span: Span) -> usize {
        self.lines_before + span.start.line()
    }

    fn error(&self, span: Span, message: impl Into<String>) -> YamlError {
        YamlError { line: self.line(span), message: message.into() }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, YamlError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(self.error(span, "the document is larger or deeper than a manifest can be"));
        }
        let line = self.line(span);
        let (anchor, tree) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Tree::Scalar(self.scalar(&text, style, tag.as_deref(), span)?))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", span)?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", span)?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(self.error(span, "a value is missing")),
        };
        let node = Node { line, tree };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, YamlError> {
        let mut node = self
            .anchors
            .get(&anchor)
            .cloned()
            .ok_or_else(|| self.error(span, "the alias contains itself"))?;
        self.nodes += node.count();
        node.line = self.line(span);
        Ok(node)
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Value, YamlError> {
        match tag {
            None if style == ScalarStyle::Plain => scalar::plain(text),
            None => Ok(text.into()),
            Some(tag) if tag.handle() == "tag:yaml.org,2002:" => scalar::tagged(tag.suffix(), text),
            Some(tag) => {
                Err(format!("the tag {}{} has no meaning in a manifest", tag.handle(), tag.suffix()))
            }
        }
        .map_err(|message| self.error(span, message))
    }

    fn refuse_tag(&self, tag: Option<&Tag>, own: &str, span: Span) -> Result<(), YamlError> {
        match tag {
            Some(tag) if tag.suffix() != own => {
                let name = format!("{}{}", tag.handle(), tag.suffix());
                Err(self.error(span, format!("the tag {name} has no meaning in a manifest")))
            }
            _ => Ok(()),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Tree, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next_in_collection()? {
                (Event::SequenceEnd, _) => return Ok(Tree::Sequence(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Tree, YamlError> {
        let mut entries = Entries::default();
        loop {
            let (event, span) = self.next_in_collection()?;
            if event == Event::MappingEnd {
                return Ok(Tree::Mapping(entries.list));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, value_span) = self.next_in_collection()?;
            let value = self.node(event, value_span, depth + 1)?;
            let line = self.line(span);
            let result = match key.tree {
                Tree::Scalar(_) if is_merge => entries.merge(value, line),
                Tree::Scalar(key) => {
                    scalar::key(key).and_then(|key| entries.insert(Entry { key, line, value }))
                }
                Tree::Sequence(_) | Tree::Mapping(_) => Err("a key must be text".to_owned()),
            };
            result.map_err(|message| self.error(span, message))?;
        }
    }
}

/// The entries of a mapping while it is read.
#[derive(Default)]
struct Entries {
    list: Vec<Entry>,
    /// Where each key stands in the list, and whether it came by a merge key: such an entry gives way to one that
    /// stands in the mapping itself.
    places: BTreeMap<String, (usize, bool)>,
}

impl Entries {
    fn insert(&mut self, entry: Entry) -> Result<(), String> {
        match self.places.get(&entry.key) {
            Some((place, true)) => {
                let place = *place;
                self.places.insert(entry.key.clone(), (place, false));
                self.list[place] = entry;
                Ok(())
            }
            Some((place, false)) => {
                let first = self.list[*place].line;
                Err(format!("key {:?} is given twice, first on line {first}", entry.key))
            }
            None => {
                self.push(entry, false);
                Ok(())
            }
        }
    }

    fn push(&mut self, entry: Entry, merged: bool) {
        self.places.insert(entry.key.clone(), (self.list.len(), merged));
        self.list.push(entry);
    }

    /// Takes over the entries of a map, at the line of the merge key; of several maps, the first that has a key.
    fn merge(&mut self, value: Node, line: usize) -> Result<(), String> {
        match value.tree {
            Tree::Mapping(merged) => {
                for entry in merged {
                    match self.places.get(&entry.key) {
                        None => self.push(Entry { line, ..entry }, true),
                        Some((_, true)) => {}
                        Some((_, false)) => {
                            return Err(format!(
                                "kubectl would replace key {:?} by that of the merged map; put << before it",
                                entry.key
                            ));
                        }
                    }
                }
                Ok(())
            }
            Tree::Sequence(maps) if maps.iter().all(|node| matches!(node.tree, Tree::Mapping(_))) => {
                maps.into_iter().try_for_each(|node| self.merge(node, line))
            }
            _ => Err("<< merges a map or a list of maps".to_owned()),
        }
    }
}

impl Node {
    fn count(&self) -> usize {
        1 + match &self.tree {
            Tree::Scalar(_) => 0,
            Tree::Sequence(items) => items.iter().map(Self::count).sum(),
            Tree::Mapping(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }
}
