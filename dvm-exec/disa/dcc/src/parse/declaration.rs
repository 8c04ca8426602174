//! Types and what stands outside of functions.
//!
//! Owns their grammar. Must not lay anything out.

use super::{Parsed, Parser};
use crate::diagnostic::{Diagnostic, Position, Reason};
use crate::lex::Kind;
use crate::limits::TYPE_DEPTH_MAX;
use crate::syntax::{Declared, Function, Initializer, Item, Storage, TypeName};
use crate::types::Scalar;

const TYPE_WORDS: &[&str] = &["void", "char", "short", "int", "long", "signed", "unsigned", "float", "double", "struct"];

impl Parser {
    /// Whether a type begins at an offset.
    pub(super) fn is_type(&self, offset: usize) -> bool {
        matches!(&self.token(offset).kind, Kind::Name(word) if TYPE_WORDS.contains(&word.as_str()))
    }

    /// A type without stars.
    pub(super) fn base_type(&mut self) -> Parsed<TypeName> {
        let at = self.position();
        if self.take_word("struct") {
            return Ok(TypeName::Struct(self.name()?.1));
        }
        if self.take_word("void") {
            return Ok(TypeName::Void);
        }
        let mut words = Vec::new();
        while let Kind::Name(word) = self.peek() {
            if !TYPE_WORDS.contains(&word.as_str()) {
                break;
            }
            words.push(word.clone());
            self.advance();
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let scalar = match words[..] {
            ["char"] | ["unsigned", "char"] => Scalar::Char,
            ["short"] | ["signed", "short"] | ["short", "int"] => Scalar::Short,
            ["int" | "signed"] | ["signed", "int"] => Scalar::Int,
            ["long"] | ["long", "long" | "int"] | ["signed", "long"] => Scalar::Long,
            ["unsigned", "short"] => Scalar::UnsignedShort,
            ["unsigned"] | ["unsigned", "int"] => Scalar::UnsignedInt,
            ["unsigned", "long"] | ["unsigned", "long", "long"] => Scalar::UnsignedLong,
            ["float"] => Scalar::Float,
            ["double"] => Scalar::Double,
            [] => return self.expected("a type"),
            _ => {
                let reason =
                    Reason::BadType("there is no such type: write char, short, int, long, unsigned of them, float, double");
                return Err(Diagnostic { at, reason });
            }
        };
        Ok(TypeName::Scalar(scalar))
    }

    fn stars(&mut self, mut ty: TypeName) -> Parsed<TypeName> {
        let mut count = 0;
        while self.take("*") {
            count += 1;
            if count > TYPE_DEPTH_MAX {
                return Err(Diagnostic { at: self.position(), reason: Reason::TooDeep });
            }
            ty = TypeName::Pointer(Box::new(ty));
        }
        Ok(ty)
    }

    /// A type with stars, as in a cast.
    pub(super) fn abstract_type(&mut self) -> Parsed<TypeName> {
        let base = self.base_type()?;
        self.stars(base)
    }

    /// Stars, a name, dimensions.
    pub(super) fn declarator(&mut self, base: &TypeName) -> Parsed<Declared> {
        let ty = self.stars(base.clone())?;
        let (at, name) = self.name()?;
        let mut dimensions = Vec::new();
        while self.take("[") {
            if dimensions.len() == TYPE_DEPTH_MAX {
                return Err(Diagnostic { at: self.position(), reason: Reason::TooDeep });
            }
            dimensions.push(if self.is_mark("]") { None } else { Some(Box::new(self.expression()?)) });
            self.mark("]")?;
        }
        let ty = dimensions.into_iter().rev().fold(ty, |ty, count| TypeName::Array(Box::new(ty), count));
        Ok(Declared { at, name, ty })
    }

    /// One piece of a source; a declaration of several variables gives several.
    pub(super) fn item(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        let at = self.position();
        if self.take_word("grain") {
            let (_, grain) = self.name()?;
            if grain != "page" {
                return Err(Diagnostic { at, reason: Reason::WrongPlace("write `grain page;`") });
            }
            items.push(Item::GrainPage);
            return self.mark(";");
        }
        if self.take_word("serializable") {
            items.push(Item::Serializable);
            return self.mark(";");
        }
        if self.take_word("enum") {
            return self.enumeration(items);
        }
        if self.is_word("struct") && matches!(&self.token(2).kind, Kind::Mark("{")) {
            return self.structure(items);
        }
        let is_static = self.take_word("static");
        if self.take_word("runner") {
            let (at, name) = self.name()?;
            let declared = Declared { at, name, ty: TypeName::Void };
            items.push(self.function(declared, true, is_static)?);
            return Ok(());
        }
        let words = [
            ("standalone", Storage::Standalone),
            ("private", Storage::Private),
            ("const", Storage::Constant),
            ("extern", Storage::Extern),
        ];
        let storage = words.iter().find(|(word, _)| self.is_word(word)).map(|(_, storage)| *storage);
        if storage.is_some() {
            self.advance();
        }
        if !self.is_type(0) {
            return self
                .expected("a declaration: a type, `runner`, `struct`, `enum`, `const`, `standalone`, `private`, `extern`");
        }
        let base = self.base_type()?;
        let declared = self.declarator(&base)?;
        if self.is_mark("(") {
            items.push(self.function(declared, false, is_static)?);
            return Ok(());
        }
        self.variables(declared, &base, storage.unwrap_or(Storage::Shared), is_static, items)
    }

    fn variables(
        &mut self,
        first: Declared,
        base: &TypeName,
        storage: Storage,
        is_static: bool,
        items: &mut Vec<Item>,
    ) -> Parsed<()> {
        let mut declared = first;
        loop {
            let initializer = if self.take("=") { Some(self.initializer()?) } else { None };
            items.push(Item::Variable { declared, storage, is_static, initializer });
            if !self.take(",") {
                return self.mark(";");
            }
            declared = self.declarator(base)?;
        }
    }

    fn initializer(&mut self) -> Parsed<Initializer> {
        let at = self.position();
        if !self.take("{") {
            return Ok(Initializer::Value(self.expression()?));
        }
        self.nested(|parser| {
            let mut all = Vec::new();
            while !parser.is_mark("}") {
                all.push(parser.initializer()?);
                if !parser.take(",") {
                    break;
                }
            }
            parser.mark("}")?;
            Ok(Initializer::List(at, all))
        })
    }

    fn enumeration(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        self.mark("{")?;
        let mut all = Vec::new();
        while !self.is_mark("}") {
            let (at, name) = self.name()?;
            let value = if self.take("=") { Some(self.expression()?) } else { None };
            all.push((at, name, value));
            if !self.take(",") {
                break;
            }
        }
        self.mark("}")?;
        items.push(Item::Enum(all));
        self.mark(";")
    }

    fn structure(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        self.advance();
        let (at, name) = self.name()?;
        self.mark("{")?;
        let mut members = Vec::new();
        while !self.take("}") {
            let base = self.base_type()?;
            loop {
                members.push(self.declarator(&base)?);
                if !self.take(",") {
                    break;
                }
            }
            self.mark(";")?;
        }
        items.push(Item::Struct(at, name, members));
        self.mark(";")
    }

    fn function(&mut self, declared: Declared, is_runner: bool, is_static: bool) -> Parsed<Item> {
        self.mark("(")?;
        let mut parameters = Vec::new();
        if self.is_word("void") && matches!(&self.token(1).kind, Kind::Mark(")")) {
            self.advance();
        }
        while !self.is_mark(")") {
            let base = self.base_type()?;
            parameters.push(self.parameter(&base)?);
            if !self.take(",") {
                break;
            }
        }
        self.mark(")")?;
        let body = if self.take(";") { None } else { Some(self.block()?) };
        Ok(Item::Function(Function { declared, is_runner, is_static, parameters, body }))
    }

    /// A parameter: an array is a pointer to its first element. A declaration needs no name.
    fn parameter(&mut self, base: &TypeName) -> Parsed<Declared> {
        let at: Position = self.position();
        let ty = self.stars(base.clone())?;
        if self.is_mark(",") || self.is_mark(")") {
            return Ok(Declared { at, name: String::new(), ty });
        }
        let Declared { name, ty, .. } = self.declarator(&ty)?;
        let ty = match ty {
            TypeName::Array(of, _) => TypeName::Pointer(of),
            other => other,
        };
        Ok(Declared { at, name, ty })
    }
}
