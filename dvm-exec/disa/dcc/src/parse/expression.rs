//! Expressions.
//!
//! Owns precedence. Must not know types, but for where their names may stand.

use super::{Parsed, Parser};
use crate::diagnostic::{Diagnostic, Position, Reason};
use crate::lex::Kind;
use crate::limits::DEPTH_MAX;
use crate::syntax::{Expression, ExpressionKind, RangeSyntax, RunnerSyntax};

/// Operators with two operands: those that bind least come first.
const LEVELS: &[&[&str]] = &[
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<", "<=", ">", ">="],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];
const ASSIGNMENTS: &[(&str, &str)] = &[
    ("+=", "+"),
    ("-=", "-"),
    ("*=", "*"),
    ("/=", "/"),
    ("%=", "%"),
    ("&=", "&"),
    ("|=", "|"),
    ("^=", "^"),
    ("<<=", "<<"),
    (">>=", ">>"),
];

fn make(at: Position, kind: ExpressionKind, depth: u32) -> Parsed<Expression> {
    if depth >= DEPTH_MAX {
        Err(Diagnostic { at, reason: Reason::TooDeep })
    } else {
        Ok(Expression { at, kind, depth: depth + 1 })
    }
}

impl Parser {
    /// An expression.
    pub(super) fn expression(&mut self) -> Parsed<Expression> {
        self.nested(Self::assignment)
    }

    fn assignment(&mut self) -> Parsed<Expression> {
        let left = self.conditional()?;
        let at = self.position();
        let operator = match self.peek() {
            Kind::Mark("=") => None,
            Kind::Mark(mark) => match ASSIGNMENTS.iter().find(|(assignment, _)| assignment == mark) {
                Some((_, operator)) => Some(*operator),
                None => return Ok(left),
            },
            _ => return Ok(left),
        };
        self.advance();
        let right = self.expression()?;
        let depth = left.depth.max(right.depth);
        make(at, ExpressionKind::Assign(operator, Box::new(left), Box::new(right)), depth)
    }

    fn conditional(&mut self) -> Parsed<Expression> {
        let condition = self.binary(0)?;
        let at = self.position();
        if !self.take("?") {
            return Ok(condition);
        }
        let yes = self.expression()?;
        self.mark(":")?;
        let no = self.nested(Self::conditional)?;
        let depth = condition.depth.max(yes.depth).max(no.depth);
        make(at, ExpressionKind::Conditional(Box::new(condition), Box::new(yes), Box::new(no)), depth)
    }

    /// Operands joined by operators of this level or a higher one.
    fn binary(&mut self, level: usize) -> Parsed<Expression> {
        let mut left = self.unary()?;
        loop {
            let at = self.position();
            let Kind::Mark(mark) = *self.peek() else { return Ok(left) };
            let Some(own) = LEVELS.iter().position(|level| level.contains(&mark)).filter(|own| *own >= level) else {
                return Ok(left);
            };
            self.advance();
            let right = self.nested(|parser| parser.binary(own + 1))?;
            let depth = left.depth.max(right.depth);
            left = make(at, ExpressionKind::Binary(mark, Box::new(left), Box::new(right)), depth)?;
        }
    }

    fn unary(&mut self) -> Parsed<Expression> {
        let at = self.position();
        let Kind::Mark(mark) = *self.peek() else { return self.word_or_postfix(at) };
        match mark {
            "-" | "~" | "!" | "*" | "&" | "+" => {
                self.advance();
                let inner = self.nested(Self::unary)?;
                let depth = inner.depth;
                if mark == "+" { Ok(inner) } else { make(at, ExpressionKind::Unary(mark, Box::new(inner)), depth) }
            }
            "++" | "--" => {
                self.advance();
                let inner = self.nested(Self::unary)?;
                let (by, depth) = (if mark == "++" { 1 } else { -1 }, inner.depth);
                make(at, ExpressionKind::Step(by, false, Box::new(inner)), depth)
            }
            "(" if self.is_type(1) => {
                self.advance();
                let ty = self.abstract_type()?;
                self.mark(")")?;
                let inner = self.nested(Self::unary)?;
                let depth = inner.depth;
                make(at, ExpressionKind::Cast(ty, Box::new(inner)), depth)
            }
            _ => self.postfix(),
        }
    }

    fn word_or_postfix(&mut self, at: Position) -> Parsed<Expression> {
        if self.take_word("sizeof") {
            if self.is_mark("(") && self.is_type(1) {
                self.advance();
                let ty = self.abstract_type()?;
                self.mark(")")?;
                return make(at, ExpressionKind::SizeOfType(ty), 0);
            }
            let inner = self.nested(Self::unary)?;
            let depth = inner.depth;
            return make(at, ExpressionKind::SizeOf(Box::new(inner)), depth);
        }
        if self.is_word("runner") || self.is_word("persistent") {
            return self.runner(at);
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Parsed<Expression> {
        let mut value = self.primary()?;
        loop {
            let at = self.position();
            let Kind::Mark(mark) = *self.peek() else { return Ok(value) };
            let depth = value.depth;
            value = match mark {
                "[" => {
                    self.advance();
                    let index = self.expression()?;
                    if self.is_mark(",,") {
                        let text = "a range a[i,,j] stands only behind `using` and `watching`";
                        return Err(Diagnostic { at, reason: Reason::WrongPlace(text) });
                    }
                    self.mark("]")?;
                    let depth = depth.max(index.depth);
                    make(at, ExpressionKind::Index(Box::new(value), Box::new(index)), depth)?
                }
                "." | "->" => {
                    self.advance();
                    let (_, name) = self.name()?;
                    make(at, ExpressionKind::Member(Box::new(value), mark == "->", name), depth)?
                }
                "++" | "--" => {
                    self.advance();
                    let by = if mark == "++" { 1 } else { -1 };
                    make(at, ExpressionKind::Step(by, true, Box::new(value)), depth)?
                }
                _ => return Ok(value),
            };
        }
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let at = self.position();
        let kind = match self.peek().clone() {
            Kind::Integer(value) => ExpressionKind::Integer(value),
            Kind::Real(value) => ExpressionKind::Real(value),
            Kind::Text(mut text) => {
                // Strings side by side are one.
                while let Kind::Text(more) = &self.token(1).kind {
                    text.extend_from_slice(more);
                    self.advance();
                }
                ExpressionKind::Text(text)
            }
            Kind::Mark("(") => {
                self.advance();
                let inner = self.expression()?;
                self.mark(")")?;
                return Ok(inner);
            }
            Kind::Name(_) => {
                let Ok((_, name)) = self.name() else { return self.expected("a value") };
                if !self.is_mark("(") {
                    return make(at, ExpressionKind::Name(name), 0);
                }
                let (arguments, depth) = self.arguments()?;
                return make(at, ExpressionKind::Call(name, arguments), depth);
            }
            Kind::Mark(_) | Kind::End => return self.expected("a value"),
        };
        self.advance();
        make(at, kind, 0)
    }

    fn arguments(&mut self) -> Parsed<(Vec<Expression>, u32)> {
        self.mark("(")?;
        let (mut arguments, mut depth) = (Vec::new(), 0);
        while !self.is_mark(")") {
            let argument = self.expression()?;
            depth = depth.max(argument.depth);
            arguments.push(argument);
            if !self.take(",") {
                break;
            }
        }
        self.mark(")")?;
        Ok((arguments, depth))
    }

    fn runner(&mut self, at: Position) -> Parsed<Expression> {
        let is_persistent = self.take_word("persistent");
        self.word("runner")?;
        let (_, name) = self.name()?;
        let (arguments, mut depth) = self.arguments()?;
        let using = if self.take_word("using") { self.ranges(&mut depth)? } else { Vec::new() };
        let watching = if self.take_word("watching") { self.ranges(&mut depth)? } else { Vec::new() };
        let syntax = RunnerSyntax { name, arguments, using, watching, is_persistent };
        make(at, ExpressionKind::Runner(Box::new(syntax)), depth)
    }

    fn ranges(&mut self, depth: &mut u32) -> Parsed<Vec<RangeSyntax>> {
        let mut ranges = Vec::new();
        loop {
            let range = self.range()?;
            *depth = (*depth).max(range.place.depth);
            if let Some((first, end)) = &range.bounds {
                *depth = (*depth).max(first.depth).max(end.depth);
            }
            ranges.push(range);
            if !self.take(",") {
                return Ok(ranges);
            }
        }
    }

    /// A place, whose last index may be two of them: `a[i,,j]`.
    fn range(&mut self) -> Parsed<RangeSyntax> {
        if self.is_mark("*") {
            return Ok(RangeSyntax { place: self.nested(Self::unary)?, bounds: None });
        }
        let mut place = self.primary()?;
        loop {
            let at = self.position();
            let depth = place.depth;
            if self.take("[") {
                let first = self.expression()?;
                if self.take(",,") {
                    let end = self.expression()?;
                    self.mark("]")?;
                    return Ok(RangeSyntax { place, bounds: Some((first, end)) });
                }
                self.mark("]")?;
                let depth = depth.max(first.depth);
                place = make(at, ExpressionKind::Index(Box::new(place), Box::new(first)), depth)?;
            } else if self.is_mark(".") || self.is_mark("->") {
                let is_arrow = self.is_mark("->");
                self.advance();
                let (_, name) = self.name()?;
                place = make(at, ExpressionKind::Member(Box::new(place), is_arrow, name), depth)?;
            } else {
                return Ok(RangeSyntax { place, bounds: None });
            }
        }
    }
}
