//! A tree of lines, drawn with the box characters of UTF-8: pure, and the same on a terminal and in a pipe.

use crate::output;

/// A line and what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    text: String,
    below: Vec<Node>,
}

impl Node {
    /// A line with nothing below it.
    pub(crate) fn leaf(text: impl Into<String>) -> Self {
        Self { text: text.into(), below: Vec::new() }
    }

    /// A line with these below it.
    pub(crate) fn over(text: impl Into<String>, below: impl IntoIterator<Item = Self>) -> Self {
        Self { text: text.into(), below: below.into_iter().collect() }
    }

    /// The text of all of it, to the end of its last line.
    pub(crate) fn draw(&self) -> String {
        let mut text = String::new();
        self.draw_below("", "", &mut text);
        text
    }

    /// `here` is what stands before its own line, `under` what stands before those below.
    fn draw_below(&self, here: &str, under: &str, text: &mut String) {
        text.push_str(here);
        text.push_str(&output::plain(&self.text));
        text.push('\n');
        for (index, node) in self.below.iter().enumerate() {
            let (branch, bar) =
                if index + 1 == self.below.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            node.draw_below(&format!("{under}{branch}"), &format!("{under}{bar}"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_join_what_belongs_together() {
        let inner = Node::over("b", [Node::leaf("c"), Node::leaf("d\n\u{1b}[31me")]);
        let tree = Node::over("a", [inner.clone(), Node::leaf("f"), inner]);
        let drawn = "\
a
├─ b
│  ├─ c
│  └─ d  [31me
├─ f
└─ b
   ├─ c
   └─ d  [31me
";
        assert_eq!(tree.draw(), drawn);
    }
}
