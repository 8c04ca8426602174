//! The table of instructions: number, name, types, attribute, operands, in one place.
//!
//! Owns what an instruction consists of; decoder, encoder, assembler, disassembler and the documents take it from here. Must
//! not know what instructions do.

use crate::types::{Attribute, Condition, Conversion, ExitMode, Type};

/// Which types an instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// None: the field holds q.
    Untyped,
    /// b, w, l, q.
    Integer,
    /// f, d.
    Float,
    /// All.
    Any,
}

impl Types {
    /// Whether `ty` is one of them.
    #[must_use]
    pub const fn allow(self, ty: Type) -> bool {
        match self {
            Self::Untyped => matches!(ty, Type::Q),
            Self::Integer => !ty.is_float(),
            Self::Float => ty.is_float(),
            Self::Any => true,
        }
    }
}

/// Which attribute an instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// None.
    Plain,
    /// Any condition.
    Branch,
    /// A condition over two operands.
    Set,
    /// A mode of exit.
    Exit,
    /// The type of the result.
    Convert,
}

/// What an operand is for, and of which type it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Read, of the instruction's type.
    In,
    /// Written, of the instruction's type.
    Out,
    /// Read and written, of the instruction's type.
    InOut,
    /// Read, a quad.
    InQ,
    /// Written, a quad.
    OutQ,
    /// Read, a byte.
    InB,
    /// Written, of the type `cvt` goes to.
    OutTo,
}

impl Place {
    /// The type of an operand here.
    #[must_use]
    pub const fn ty(self, ty: Type, attribute: Attribute) -> Type {
        match (self, attribute) {
            (Self::In | Self::Out | Self::InOut, _) => ty,
            (Self::OutTo, Attribute::Convert(conversion)) => conversion.to,
            (Self::InQ | Self::OutQ | Self::OutTo, _) => Type::Q,
            (Self::InB, _) => Type::B,
        }
    }
}

macro_rules! operations {
    ($($code:literal $variant:ident $name:literal $types:ident $attributes:ident [$($place:ident)*] $text:literal;)*) => {
        /// An operation, by its name in the text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $text] $variant = $code,)* }

        impl Op {
            /// All, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The byte that stands for it.
            #[must_use]
            pub const fn code(self) -> u8 { self as u8 }

            /// The one that a byte stands for.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its effect, for people.
            #[must_use]
            pub const fn effect(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The types it takes.
            #[must_use]
            pub const fn types(self) -> Types {
                match self { $(Self::$variant => Types::$types,)* }
            }

            /// The attributes it takes.
            #[must_use]
            pub const fn attributes(self) -> Attributes {
                match self { $(Self::$variant => Attributes::$attributes,)* }
            }

            const fn all_places(self) -> &'static [Place] {
                match self { $(Self::$variant => &[$(Place::$place,)*],)* }
            }
        }
    };
}

operations! {
    0x00 Nop    "nop"    Untyped Plain   []                 "nothing";
    0x01 Add    "add"    Any     Plain   [In In Out]        "M := D1 + D2";
    0x02 Sub    "sub"    Any     Plain   [In In Out]        "M := D1 - D2";
    0x03 Mul    "mul"    Any     Plain   [In In Out]        "M := D1 * D2";
    0x04 Div    "div"    Any     Plain   [In In Out]        "M := D1 / D2, unsigned or IEEE";
    0x05 Newr   "newr"   Untyped Plain   [InQ InQ InQ InQ]  "makes a runner: stack, heap, watched, first instruction";
    0x06 Exit   "exit"   Untyped Exit    []                 "ends the runner";
    0x07 Br     "br"     Any     Branch  [In In InQ]        "jumps to T if the condition holds";
    0x08 And    "and"    Integer Plain   [In In Out]        "M := D1 and D2";
    0x09 Or     "or"     Integer Plain   [In In Out]        "M := D1 or D2";
    0x0A Xor    "xor"    Integer Plain   [In In Out]        "M := D1 xor D2";
    0x0B Mov    "mov"    Any     Plain   [In Out]           "M := D1";
    0x0C Sys    "sys"    Untyped Plain   [InQ InQ]          "asks the system: number, argument";
    0x0D Bl     "bl"     Untyped Plain   [InQ OutQ]         "M := address of the next instruction, jumps to T";
    0x0E Cmpb   "cmpb"   Untyped Plain   [InQ InQ InQ OutQ] "M := index of the first byte that differs, or n";
    0x10 Rem    "rem"    Integer Plain   [In In Out]        "M := D1 mod D2, unsigned";
    0x11 Divs   "divs"   Integer Plain   [In In Out]        "M := D1 / D2, signed, towards zero";
    0x12 Rems   "rems"   Integer Plain   [In In Out]        "M := D1 mod D2, signed, sign of D1";
    0x13 Shl    "shl"    Integer Plain   [In In Out]        "M := D1 shifted left by D2 modulo the width";
    0x14 Shr    "shr"    Integer Plain   [In In Out]        "M := D1 shifted right, zeros come in";
    0x15 Sar    "sar"    Integer Plain   [In In Out]        "M := D1 shifted right, the sign comes in";
    0x16 Movs   "movs"   Integer Plain   [In OutQ]          "M := D1 sign-extended to a quad";
    0x17 Set    "set"    Any     Set     [In In OutQ]       "M := 1 if the condition holds, else 0; a quad";
    0x18 Popcnt "popcnt" Integer Plain   [In Out]           "M := number of ones in D1";
    0x19 Cvt    "cvt"    Any     Convert [In OutTo]         "M := D1 in another type";
    0x1A Sqrt   "sqrt"   Float   Plain   [In Out]           "M := square root of D1";
    0x1B Fma    "fma"    Float   Plain   [In In InOut]      "M := M + D1 * D2, rounded once";
    0x1C Mulh   "mulh"   Integer Plain   [In In Out]        "M := upper half of D1 * D2, unsigned";
    0x1D Mulhs  "mulhs"  Integer Plain   [In In Out]        "M := upper half of D1 * D2, signed";
    0x1E Clz    "clz"    Integer Plain   [In Out]           "M := zeros before the first one of D1, or the width";
    0x1F Ctz    "ctz"    Integer Plain   [In Out]           "M := zeros behind the last one of D1, or the width";
    0x20 Copy   "copy"   Untyped Plain   [InQ InQ InQ]      "copies n bytes from src to dst, as if through a buffer";
    0x21 Fill   "fill"   Untyped Plain   [InB InQ InQ]      "sets n bytes at dst";
    0x22 Find   "find"   Untyped Plain   [InB InQ InQ OutQ] "M := index of the first such byte of n at a, or n";
    0x23 Hash   "hash"   Untyped Plain   [InQ InQ OutQ]     "M := FNV-1a-64 of n bytes at a";
    0x30 Neww   "neww"   Untyped Plain   [InQ InQ InQ InQ]  "makes a persistent watcher, operands as newr";
    0x31 Touch  "touch"  Untyped Plain   [InQ InQ]          "says that n bytes at base will be used";
    0x3E Trap   "trap"   Untyped Plain   [InQ]              "traps with USER n";
    0x3F Brk    "brk"    Untyped Plain   []                 "stops in a debugger, else nothing";
}

impl Op {
    /// The one with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// Its operands, with this attribute.
    #[must_use]
    pub fn places(self, attribute: Attribute) -> &'static [Place] {
        let all = self.all_places();
        match (self, attribute) {
            (Self::Br, Attribute::Condition(condition)) => &all[2 - condition.operands()..],
            _ => all,
        }
    }

    /// The attribute that four bits mean for this instruction of this type; `None` if they mean nothing.
    #[must_use]
    pub fn attribute(self, ty: Type, bits: u8) -> Option<Attribute> {
        let attribute = match self.attributes() {
            Attributes::Plain => (bits == 0).then_some(Attribute::None)?,
            Attributes::Branch | Attributes::Set => Attribute::Condition(Condition::from_code(bits)?),
            Attributes::Exit => Attribute::Exit(ExitMode::from_code(bits)?),
            Attributes::Convert => Attribute::Convert(Conversion { to: Type::from_code(bits & 7)?, is_signed: bits & 8 != 0 }),
        };
        self.fits(ty, attribute).then_some(attribute)
    }

    /// Whether the instruction exists with this type and this attribute.
    #[must_use]
    pub fn fits(self, ty: Type, attribute: Attribute) -> bool {
        let kind_fits = match (self.attributes(), attribute) {
            (Attributes::Plain, Attribute::None) | (Attributes::Exit, Attribute::Exit(_)) => true,
            (Attributes::Branch, Attribute::Condition(Condition::Always)) => ty == Type::Q,
            (Attributes::Branch, Attribute::Condition(condition)) => !(condition.is_signed() && ty.is_float()),
            (Attributes::Set, Attribute::Condition(condition)) => {
                condition.operands() == 2 && !(condition.is_signed() && ty.is_float())
            }
            (Attributes::Convert, Attribute::Convert(conversion)) => {
                !(conversion.is_signed && ty.is_float() && conversion.to.is_float())
            }
            _ => false,
        };
        kind_fits && self.types().allow(ty)
    }
}
