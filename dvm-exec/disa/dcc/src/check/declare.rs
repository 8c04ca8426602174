//! What stands outside of functions.
//!
//! Owns layout of structures and contents of variables. Must not know statements.

use super::{Checked, Checker, Meaning, Signature, fail};
use crate::diagnostic::{Position, Reason};
use crate::limits::{CONTENTS_BYTES_MAX, PARAMETERS_MAX, PRIVATE_BYTES_MAX};
use crate::syntax::{Declared, Expression, ExpressionKind, Function, Initializer, Storage, TypeName};
use crate::typed::{Global, Kept, Kind, Value};
use crate::types::{Scalar, Type};
use dvm_disa::map;

impl Checker<'_> {
    fn introduce(&mut self, at: Position, name: &str, meaning: Meaning) -> Checked<()> {
        check_name(at, name)?;
        if self.meanings.insert(name.into(), meaning).is_some() { fail(at, Reason::Duplicate(name.into())) } else { Ok(()) }
    }

    pub(super) fn declare_enum(&mut self, all: Vec<(Position, String, Option<Expression>)>) -> Checked<()> {
        let mut next = 0i64;
        for (at, name, value) in all {
            if let Some(value) = value {
                next = self.constant(&value, "the value of an enum")?;
            }
            self.introduce(at, &name, Meaning::Constant(Value::integer(next), Type::LONG))?;
            next = next.wrapping_add(1);
        }
        Ok(())
    }

    pub(super) fn declare_struct(&mut self, at: Position, name: String, members: Vec<Declared>) -> Checked<()> {
        if self.structures.0.iter().any(|structure| structure.name == name) {
            return fail(at, Reason::Duplicate(format!("struct {name}")));
        }
        // So that pointers to it can be members.
        let index = self.structures.0.len();
        let unfinished = self.structures.lay_out(name.clone(), Vec::new());
        self.structures.0.extend(unfinished);
        let mut resolved: Vec<(String, Type)> = Vec::new();
        for member in members {
            let ty = self.resolve_object(member.at, &member.ty)?;
            if contains(&ty, index) {
                return fail(member.at, Reason::BadType("a struct cannot contain itself: make the member a pointer"));
            }
            if resolved.iter().any(|(name, _)| *name == member.name) {
                return fail(member.at, Reason::Duplicate(member.name));
            }
            resolved.push((member.name, ty));
        }
        match self.structures.lay_out(name, resolved) {
            Some(structure) => {
                self.structures.0[index] = structure;
                Ok(())
            }
            None => fail(at, Reason::BadType("an object of this size has no room: at most 32 TiB")),
        }
    }

    pub(super) fn declare_function(&mut self, function: &Function) -> Checked<()> {
        let Function { declared: Declared { at, name, ty }, .. } = function;
        check_name(*at, name)?;
        let result = self.resolve(*at, ty)?;
        if result != Type::Void && result.scalar().is_none() {
            return fail(*at, Reason::BadType("a function returns a number, a pointer or void: pass a pointer to the struct"));
        }
        let mut parameters = Vec::new();
        for parameter in &function.parameters {
            let ty = self.resolve_object(parameter.at, &parameter.ty)?;
            if parameter.name.is_empty() && function.body.is_some() {
                return fail(parameter.at, Reason::Expected { expected: "a name".into(), found: "a type alone".into() });
            }
            if ty.scalar().is_none() {
                return fail(parameter.at, Reason::BadType("a parameter is a number or a pointer: pass a pointer to the struct"));
            }
            parameters.push(ty);
        }
        if parameters.len() > PARAMETERS_MAX {
            return fail(*at, Reason::TooMany { what: "parameters", max: PARAMETERS_MAX as u64 });
        }
        if function.is_runner && name == "main" && !parameters.is_empty() {
            return fail(*at, Reason::BadType("`runner main` has no parameters: ask for arguments with argument()"));
        }
        let signature = Signature { result, parameters, is_runner: function.is_runner };
        match self.meanings.get(name) {
            Some(Meaning::Function(before)) if *before == signature => {}
            Some(Meaning::Function(_)) => return fail(*at, Reason::Redeclared(name.clone())),
            Some(_) => return fail(*at, Reason::Duplicate(name.clone())),
            None => {
                self.meanings.insert(name.clone(), Meaning::Function(signature));
            }
        }
        self.declared.entry(name.clone()).or_insert(*at);
        if function.body.is_some() && self.defined.insert(name.clone(), *at).is_some() {
            return fail(*at, Reason::Duplicate(name.clone()));
        }
        Ok(())
    }

    pub(super) fn declare_constant(&mut self, declared: Declared, is_static: bool, initial: Option<Initializer>) -> Checked<()> {
        let Declared { at, name, ty: written } = &declared;
        let Some(initial) = initial else { return fail(*at, Reason::NotConstant("what a `const` begins with")) };
        let ty = self.sized(*at, written, Some(&initial))?;
        let Some(scalar) = ty.scalar() else {
            let bytes = self.bytes(*at, &ty)?;
            let contents = self.contents(&ty, &initial)?;
            let global = Global { at: *at, name: name.clone(), is_static, kept: Kept::Constant, bytes, contents: Some(contents) };
            return self.define(global, ty);
        };
        let mut value = self.scalar_constant(scalar, &initial)?;
        if ty.is_integer() {
            self.unit.constants.push(name.clone());
            if let Some(define) = self.defines.iter().rev().find(|define| define.name == *name) {
                let fits = scalar.wrap(define.value) == define.value;
                let refused = Reason::DoesNotFit { value: define.value, ty: scalar.name() };
                self.note(if fits { Ok(()) } else { fail(*at, refused) });
                value = Value::integer(define.value);
            }
        }
        self.introduce(*at, name, Meaning::Constant(value, ty))
    }

    pub(super) fn declare_variable(
        &mut self,
        declared: Declared,
        storage: Storage,
        is_static: bool,
        initial: Option<Initializer>,
    ) -> Checked<()> {
        let Declared { at, name, ty: written } = &declared;
        let ty = self.sized(*at, written, initial.as_ref())?;
        let bytes = self.bytes(*at, &ty)?;
        let kept = match storage {
            Storage::Extern => {
                if initial.is_some() {
                    return fail(*at, Reason::WrongPlace("an `extern` variable begins with what its own source says"));
                }
                self.declared.insert(name.clone(), *at);
                return self.introduce(*at, name, Meaning::Variable { ty, is_private: false });
            }
            Storage::Private => {
                if initial.is_some() {
                    return fail(
                        *at,
                        Reason::WrongPlace("a `private` variable is zero when a runner starts: assign in the runner"),
                    );
                }
                self.private_bytes = self.private_bytes.saturating_add(bytes.next_multiple_of(8));
                if self.private_bytes > PRIVATE_BYTES_MAX {
                    return fail(*at, Reason::TooMany { what: "bytes of private variables", max: PRIVATE_BYTES_MAX });
                }
                Kept::Private
            }
            Storage::Standalone => Kept::Standalone,
            Storage::Shared | Storage::Constant => Kept::Shared,
        };
        let contents = initial.map(|initial| self.contents(&ty, &initial)).transpose()?;
        self.define(Global { at: *at, name: name.clone(), is_static, kept, bytes, contents }, ty)
    }

    fn define(&mut self, global: Global, ty: Type) -> Checked<()> {
        let (at, name) = (global.at, global.name.clone());
        let is_private = matches!(global.kept, Kept::Private | Kept::Constant);
        // `extern` first, then the variable itself, is the same variable.
        let is_declared = matches!(self.meanings.get(&name), Some(Meaning::Variable { ty: before, .. }) if *before == ty)
            && !self.defined.contains_key(&name);
        if !is_declared {
            self.introduce(at, &name, Meaning::Variable { ty, is_private })?;
        }
        self.defined.insert(name, at);
        self.unit.globals.push(global);
        Ok(())
    }

    /// The type of a variable; the initialiser may say its length.
    fn sized(&mut self, at: Position, written: &TypeName, initial: Option<&Initializer>) -> Checked<Type> {
        let (TypeName::Array(of, None), Some(initial)) = (written, initial) else { return self.resolve_object(at, written) };
        let of = self.resolve_object(at, of)?;
        let count = match initial {
            Initializer::List(_, all) => all.len(),
            Initializer::Value(Expression { kind: ExpressionKind::Text(text), .. }) => text.len() + 1,
            Initializer::Value(_) => 0,
        };
        if count == 0 {
            return fail(at, Reason::BadType("an array begins with { ... } or, if it is of char, with a string"));
        }
        Ok(Type::Array(Box::new(of), count as u64))
    }

    fn scalar_constant(&mut self, scalar: Scalar, initial: &Initializer) -> Checked<Value> {
        let Initializer::Value(expression) = initial else {
            let Initializer::List(at, _) = initial else { return Ok(Value::integer(0)) };
            return fail(*at, Reason::BadType("{ ... } is for arrays and structs"));
        };
        let (value, ty) = self.value(expression)?;
        let value = self.convert(expression.at, value, &ty, &Type::Scalar(scalar))?;
        if matches!(value.kind, Kind::Integer(_) | Kind::Real(_)) {
            Ok(value)
        } else {
            fail(expression.at, Reason::NotConstant("what a variable begins with"))
        }
    }

    /// The bytes of a variable when the program starts.
    fn contents(&mut self, ty: &Type, initial: &Initializer) -> Checked<Vec<u8>> {
        let at = match initial {
            Initializer::Value(expression) => expression.at,
            Initializer::List(at, _) => *at,
        };
        let bytes = self.bytes(at, ty)?;
        if bytes > CONTENTS_BYTES_MAX {
            return fail(at, Reason::TooMany { what: "bytes with contents", max: CONTENTS_BYTES_MAX });
        }
        let mut contents = vec![0; bytes as usize];
        self.fill(ty, initial, &mut contents, at)?;
        Ok(contents)
    }

    fn fill(&mut self, ty: &Type, initial: &Initializer, to: &mut [u8], at: Position) -> Checked<()> {
        if let Some(scalar) = ty.scalar() {
            let bits = match self.scalar_constant(scalar, initial)?.kind {
                Kind::Real(value) if scalar == Scalar::Float => u64::from((value as f32).to_bits()),
                Kind::Real(value) => value.to_bits(),
                Kind::Integer(value) => value as u64,
                _ => 0,
            };
            to.copy_from_slice(&bits.to_le_bytes()[..to.len()]);
            return Ok(());
        }
        let parts: Vec<(Type, usize)> = match ty {
            Type::Array(of, count) => {
                let each = self.bytes(at, of)? as usize;
                if let Initializer::Value(Expression { kind: ExpressionKind::Text(text), at, .. }) = initial {
                    if **of != Type::Scalar(Scalar::Char) || text.len() > to.len() {
                        return fail(*at, Reason::BadType("a string begins an array of char that has room for it"));
                    }
                    to[..text.len()].copy_from_slice(text);
                    return Ok(());
                }
                (0..*count as usize).map(|index| ((**of).clone(), index * each)).collect()
            }
            Type::Struct(index) => {
                let structure = &self.structures.0[*index];
                structure.members.iter().map(|member| (member.ty.clone(), member.offset as usize)).collect()
            }
            Type::Void | Type::Scalar(_) | Type::Pointer(_) => Vec::new(),
        };
        let Initializer::List(at, all) = initial else {
            return fail(at, Reason::BadType("an array or a struct begins with { ... }"));
        };
        if all.len() > parts.len() {
            return fail(*at, Reason::TooMany { what: "values in this { ... }", max: parts.len() as u64 });
        }
        for (value, (ty, offset)) in all.iter().zip(parts) {
            let bytes = self.bytes(*at, &ty)? as usize;
            self.fill(&ty, value, &mut to[offset..offset + bytes], *at)?;
        }
        Ok(())
    }
}

fn contains(ty: &Type, structure: usize) -> bool {
    match ty {
        Type::Struct(index) => *index == structure,
        Type::Array(of, _) => contains(of, structure),
        Type::Void | Type::Scalar(_) | Type::Pointer(_) => false,
    }
}

/// Refuses names that the assembler keeps for itself.
fn check_name(at: Position, name: &str) -> Checked<()> {
    let is_slot = name.strip_prefix('w').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    let is_reserved = is_slot || name == "bits" || map::SYMBOLS.iter().any(|(symbol, _)| *symbol == name);
    if is_reserved { fail(at, Reason::Reserved(name.into())) } else { Ok(()) }
}
