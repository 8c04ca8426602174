//! Types: numbers, pointers, arrays, structures.
//!
//! Owns sizes and alignments. Must not know names of variables.

use crate::limits::OBJECT_BYTES_MAX;
use dvm_disa::types as disa;

/// A number as memory holds it. In the window all are quads or doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// 1 byte, unsigned.
    Char,
    /// 2 bytes.
    Short,
    /// 4 bytes.
    Int,
    /// 8 bytes.
    Long,
    /// 2 bytes, unsigned.
    UnsignedShort,
    /// 4 bytes, unsigned.
    UnsignedInt,
    /// 8 bytes, unsigned.
    UnsignedLong,
    /// IEEE single.
    Float,
    /// IEEE double.
    Double,
}

impl Scalar {
    /// Its type in instructions.
    #[must_use]
    pub const fn ty(self) -> disa::Type {
        match self {
            Self::Char => disa::Type::B,
            Self::Short | Self::UnsignedShort => disa::Type::W,
            Self::Int | Self::UnsignedInt => disa::Type::L,
            Self::Long | Self::UnsignedLong => disa::Type::Q,
            Self::Float => disa::Type::F,
            Self::Double => disa::Type::D,
        }
    }

    /// Whether it is a number with a fraction.
    #[must_use]
    pub const fn is_real(self) -> bool {
        self.ty().is_float()
    }

    /// Whether it is an integer with a sign.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Short | Self::Int | Self::Long)
    }

    /// Whether the window holds it as memory does.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self.ty(), disa::Type::Q | disa::Type::D)
    }

    /// An integer as this type keeps it.
    #[must_use]
    pub const fn wrap(self, value: i64) -> i64 {
        match self {
            Self::Char => value as u8 as i64,
            Self::Short => value as i16 as i64,
            Self::Int => value as i32 as i64,
            Self::UnsignedShort => value as u16 as i64,
            Self::UnsignedInt => value as u32 as i64,
            Self::Long | Self::UnsignedLong | Self::Float | Self::Double => value,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Char => "char",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::UnsignedShort => "unsigned short",
            Self::UnsignedInt => "unsigned int",
            Self::UnsignedLong => "unsigned long",
            Self::Float => "float",
            Self::Double => "double",
        }
    }
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing.
    Void,
    /// A number.
    Scalar(Scalar),
    /// An address.
    Pointer(Box<Type>),
    /// So many of them.
    Array(Box<Type>, u64),
    /// The structure with this index.
    Struct(usize),
}

impl Type {
    /// A signed quad.
    pub const LONG: Self = Self::Scalar(Scalar::Long);
    /// A double.
    pub const DOUBLE: Self = Self::Scalar(Scalar::Double);

    /// An address of such.
    #[must_use]
    pub fn pointer(self) -> Self {
        Self::Pointer(Box::new(self))
    }

    /// How one value of it is kept in memory, if the window can hold it.
    #[must_use]
    pub const fn scalar(&self) -> Option<Scalar> {
        match self {
            Self::Scalar(scalar) => Some(*scalar),
            Self::Pointer(_) => Some(Scalar::UnsignedLong),
            Self::Void | Self::Array(..) | Self::Struct(_) => None,
        }
    }

    /// Whether it is a number with a fraction.
    #[must_use]
    pub const fn is_real(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if scalar.is_real())
    }

    /// Whether it is an integer.
    #[must_use]
    pub const fn is_integer(&self) -> bool {
        matches!(self, Self::Scalar(scalar) if !scalar.is_real())
    }
}

/// A member of a structure.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Bytes before it.
    pub offset: u64,
}

/// A structure.
#[derive(Clone, Debug)]
pub struct Structure {
    /// Its name.
    pub name: String,
    /// Its members.
    pub members: Vec<Member>,
    /// Its bytes, with padding.
    pub bytes: u64,
    /// What its address is a multiple of.
    pub alignment: u64,
}

/// All structures of a source.
#[derive(Debug, Default)]
pub struct Structures(pub Vec<Structure>);

impl Structures {
    /// Bytes of a value; `None`: it has none, or too many.
    #[must_use]
    pub fn bytes(&self, ty: &Type) -> Option<u64> {
        let bytes = match ty {
            Type::Void => None,
            Type::Scalar(scalar) => Some(scalar.ty().bytes() as u64),
            Type::Pointer(_) => Some(8),
            Type::Array(of, count) => self.bytes(of)?.checked_mul(*count),
            Type::Struct(index) => self.0.get(*index).map(|structure| structure.bytes),
        };
        bytes.filter(|bytes| *bytes <= OBJECT_BYTES_MAX)
    }

    /// What the address of a value is a multiple of.
    #[must_use]
    pub fn alignment(&self, ty: &Type) -> u64 {
        match ty {
            Type::Void => 1,
            Type::Scalar(scalar) => scalar.ty().bytes() as u64,
            Type::Pointer(_) => 8,
            Type::Array(of, _) => self.alignment(of),
            Type::Struct(index) => self.0.get(*index).map_or(1, |structure| structure.alignment),
        }
    }

    /// A structure with these members, laid out; `None`: it is too large.
    #[must_use]
    pub fn lay_out(&self, name: String, members: Vec<(String, Type)>) -> Option<Structure> {
        let (mut at, mut alignment) = (0u64, 1);
        let mut placed = Vec::with_capacity(members.len());
        for (name, ty) in members {
            let own = self.alignment(&ty);
            alignment = alignment.max(own);
            let offset = at.next_multiple_of(own);
            at = offset.checked_add(self.bytes(&ty)?)?;
            placed.push(Member { name, ty, offset });
        }
        let bytes = at.max(1).next_multiple_of(alignment);
        (bytes <= OBJECT_BYTES_MAX).then_some(Structure { name, members: placed, bytes, alignment })
    }

    /// The type as a person would write it.
    #[must_use]
    pub fn name(&self, ty: &Type) -> String {
        match ty {
            Type::Void => "void".into(),
            Type::Scalar(scalar) => scalar.name().into(),
            Type::Pointer(of) => format!("{} *", self.name(of)),
            Type::Array(of, count) => format!("{}[{count}]", self.name(of)),
            Type::Struct(index) => format!("struct {}", self.0.get(*index).map_or("?", |structure| &structure.name)),
        }
    }
}
