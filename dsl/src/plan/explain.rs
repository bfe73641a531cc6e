//! What of a plan runs compiled, and what in the interpreter, in words.

use std::fmt::Write as _;

use crate::node::Node;

use super::{Op, Plan};

impl Plan {
    /// One paragraph for each expression, its lines without a newline at the end.
    pub(crate) fn explain(&self) -> String {
        let mut text = String::new();
        for (name, op) in [("filter", &self.filter), ("projection", &self.projection)] {
            let newline = if text.is_empty() { "" } else { "\n" };
            let _ = write!(text, "{newline}{name}: ");
            match op {
                None => text.push_str("none"),
                Some(op) => text.push_str(&self.explained(op)),
            }
        }
        text
    }

    fn explained(&self, op: &Op) -> String {
        let (mut paths, mut interpreted) = (Vec::new(), Vec::new());
        self.collect(op, &mut paths, &mut interpreted);
        let mut text = match (op, interpreted.len()) {
            (_, 0) => "compiled".to_owned(),
            (Op::Interpret { .. }, 1) => "in the interpreter".to_owned(),
            (_, 1) => "compiled, but for 1 part in the interpreter".to_owned(),
            (_, n) => format!("compiled, but for {n} parts in the interpreter"),
        };
        if !paths.is_empty() {
            let _ = write!(text, "\n  reads {}", paths.join(", "));
        }
        for part in interpreted {
            let _ = write!(text, "\n  interprets {part}");
        }
        text
    }

    fn collect(&self, op: &Op, paths: &mut Vec<String>, interpreted: &mut Vec<String>) {
        match op {
            Op::Path(path) => {
                let shown = self.paths.shown(*path);
                if !paths.contains(&shown) {
                    paths.push(shown);
                }
            }
            Op::Interpret { on, steps } => {
                let steps: Vec<_> = steps.iter().map(shown).collect();
                let on = match &**on {
                    Op::Path(path) => self.paths.shown(*path),
                    _ => "a compiled result".to_owned(),
                };
                interpreted.push(format!("{} on {on}", steps.join(", then ")));
            }
            Op::Call {
                function,
                arguments,
                ..
            } if arguments.iter().any(|op| matches!(op, Op::Reference(_))) => {
                interpreted.push(format!("the expressions given to {}()", function.name));
            }
            _ => {}
        }
        for part in op.parts() {
            self.collect(part, paths, interpreted);
        }
    }
}

fn shown(step: &Node) -> String {
    match step {
        Node::Each { list, each } => {
            let what = match (&**list, &**each) {
                (Node::Slice { .. }, _) => "a slice [start:stop]",
                (Node::Members(_), _) => "all values *",
                (Node::Flatten(_), _) => "[]",
                (_, Node::Where { .. }) => "[?…]",
                _ => "[*]",
            };
            what.to_owned()
        }
        Node::Members(_) => "all values *".to_owned(),
        Node::Flatten(_) => "[]".to_owned(),
        Node::Call {
            function, position, ..
        } => format!(
            "{}() (line {}, column {})",
            function.name, position.0, position.1
        ),
        Node::Object(_) => "{…}".to_owned(),
        Node::List(_) => "[…]".to_owned(),
        Node::Field(name) => format!("the field {name:?}"),
        Node::Index(index) => format!("[{index}]"),
        _ => "the rest of a chain".to_owned(),
    }
}
