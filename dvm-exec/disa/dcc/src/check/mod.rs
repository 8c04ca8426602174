//! Names and types: a syntax tree into a typed tree, with every error that is found.
//!
//! Owns what is declared outside of functions. Must not know instructions, but for those that operators stand for.

mod builtin;
mod call;
mod declare;
mod expression;
mod fold;
mod operator;
mod place;
mod statement;

use crate::Define;
use crate::diagnostic::{Diagnostic, Position, Reason};
use crate::limits::DIAGNOSTICS_MAX;
use crate::syntax::{Item, Storage, TypeName};
use crate::typed::{Local, Unit, Value};
use crate::types::{Structures, Type};
use std::collections::BTreeMap;

type Checked<T> = Result<T, Diagnostic>;

/// What a function takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    result: Type,
    parameters: Vec<Type>,
    is_runner: bool,
}

/// What a name outside of functions stands for.
#[derive(Clone, Debug)]
enum Meaning {
    Constant(Value, Type),
    Variable { ty: Type, is_private: bool },
    Function(Signature),
}

/// A variable of a function, by name.
#[derive(Clone, Debug)]
struct Named {
    local: usize,
    ty: Type,
}

/// What is known while a source is checked.
struct Checker<'a> {
    defines: &'a [Define],
    structures: Structures,
    meanings: BTreeMap<String, Meaning>,
    /// Names with a body or contents here.
    defined: BTreeMap<String, Position>,
    declared: BTreeMap<String, Position>,
    private_bytes: u64,
    unit: Unit,
    diagnostics: Vec<Diagnostic>,
    // Of the function that is checked.
    scopes: Vec<BTreeMap<String, Named>>,
    locals: Vec<Local>,
    frame_bytes: u64,
    makes_calls: bool,
    result: Type,
    is_runner: bool,
    loops: u32,
}

/// The typed tree of a source.
///
/// # Errors
/// All that is wrong with it, up to a maximum.
pub fn check(items: Vec<Item>, defines: &[Define]) -> Result<Unit, Vec<Diagnostic>> {
    let mut checker = Checker {
        defines,
        structures: Structures::default(),
        meanings: BTreeMap::new(),
        defined: BTreeMap::new(),
        declared: BTreeMap::new(),
        private_bytes: 0,
        unit: Unit::default(),
        diagnostics: Vec::new(),
        scopes: Vec::new(),
        locals: Vec::new(),
        frame_bytes: 0,
        makes_calls: false,
        result: Type::Void,
        is_runner: false,
        loops: 0,
    };
    let mut functions = Vec::new();
    for item in items {
        let declared = match item {
            Item::GrainPage => {
                checker.unit.is_page_grain = true;
                Ok(())
            }
            Item::Serializable => {
                checker.unit.is_serializable = true;
                Ok(())
            }
            Item::Enum(all) => checker.declare_enum(all),
            Item::Struct(at, name, members) => checker.declare_struct(at, name, members),
            Item::Variable { declared, storage: Storage::Constant, is_static, initializer } => {
                checker.declare_constant(declared, is_static, initializer)
            }
            Item::Variable { declared, storage, is_static, initializer } => {
                checker.declare_variable(declared, storage, is_static, initializer)
            }
            Item::Function(function) => {
                let declared = checker.declare_function(&function);
                if declared.is_ok() && function.body.is_some() {
                    functions.push(function);
                }
                declared
            }
        };
        checker.note(declared);
    }
    for function in functions {
        checker.function(function);
    }
    let Checker { mut unit, declared, defined, mut diagnostics, .. } = checker;
    if !diagnostics.is_empty() {
        diagnostics.truncate(DIAGNOSTICS_MAX);
        return Err(diagnostics);
    }
    unit.externs = declared.into_iter().filter(|(name, _)| !defined.contains_key(name)).collect();
    Ok(unit)
}

fn fail<T>(at: Position, reason: Reason) -> Checked<T> {
    Err(Diagnostic { at, reason })
}

impl Checker<'_> {
    fn note(&mut self, result: Checked<()>) {
        if let Err(diagnostic) = result {
            self.diagnostics.push(diagnostic);
        }
    }

    /// A type as written, with its lengths computed.
    fn resolve(&mut self, at: Position, written: &TypeName) -> Checked<Type> {
        let ty = match written {
            TypeName::Void => Type::Void,
            TypeName::Scalar(scalar) => Type::Scalar(*scalar),
            TypeName::Struct(name) => {
                let found = self.structures.0.iter().position(|structure| structure.name == *name);
                return found
                    .map_or_else(|| fail(at, Reason::Undeclared(format!("struct {name}"))), |index| Ok(Type::Struct(index)));
            }
            // A structure may point to itself, and to one that follows.
            TypeName::Pointer(of) => return Ok(self.resolve(at, of)?.pointer()),
            TypeName::Array(of, count) => {
                let of = self.resolve(at, of)?;
                let Some(count) = count else {
                    return fail(at, Reason::BadType("an array needs its length: name[10], or an initialiser"));
                };
                let place = count.at;
                let count = self.constant(count, "the length of an array")?;
                let count = u64::try_from(count).ok().filter(|count| *count > 0);
                let Some(count) = count else { return fail(place, Reason::BadType("an array has at least 1 element")) };
                Type::Array(Box::new(of), count)
            }
        };
        if ty != Type::Void && self.structures.bytes(&ty).is_none() {
            return fail(at, Reason::BadType("an object of this size has no room: at most 32 TiB, and no arrays of void"));
        }
        Ok(ty)
    }

    /// A type that a variable can have.
    fn resolve_object(&mut self, at: Position, written: &TypeName) -> Checked<Type> {
        match self.resolve(at, written)? {
            Type::Void => fail(at, Reason::BadType("a variable cannot be void: write void * for an address of anything")),
            ty => Ok(ty),
        }
    }

    fn bytes(&self, at: Position, ty: &Type) -> Checked<u64> {
        let known = self.structures.bytes(ty);
        known.map_or_else(|| fail(at, Reason::BadType("void has no size: cast the pointer to the type it points to")), Ok)
    }

    fn type_error<T>(&self, at: Position, context: &str, needs: &str, found: &Type) -> Checked<T> {
        let found = self.structures.name(found);
        fail(at, Reason::Type { context: context.into(), needs: needs.into(), found })
    }
}
