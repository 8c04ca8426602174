//! Types, conditions, exit modes and conversions: what the attribute byte of an instruction says.
//!
//! Owns their numbers and names. Must not know which instruction takes which.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$item])* $variant = $code,)* }

        impl $name {
            /// All, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its number in the encoding.
            #[must_use]
            pub const fn code(self) -> u8 { self as u8 }

            /// The one with this number.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Its name in the text.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|item| item.name() == name)
            }
        }
    };
}

named! {
    /// What an operand holds.
    Type {
        /// 1 byte.
        B 0 "b",
        /// 2 bytes.
        W 1 "w",
        /// 4 bytes.
        L 2 "l",
        /// 8 bytes.
        Q 3 "q",
        /// IEEE single.
        F 4 "f",
        /// IEEE double.
        D 5 "d",
    }
}

impl Type {
    /// Bytes of a value.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::B => 1,
            Self::W => 2,
            Self::L | Self::F => 4,
            Self::Q | Self::D => 8,
        }
    }

    /// Bits of a value.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bytes() as u32 * 8
    }

    /// All bits of a value set.
    #[must_use]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The value as a signed number.
    #[must_use]
    pub const fn sign_extend(self, value: u64) -> i64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64) >> unused
    }

    /// Whether it is single or double.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F | Self::D)
    }
}

named! {
    /// When a branch is taken; `set` takes those that compare two operands.
    Condition {
        /// Always.
        Always 0 "a",
        /// Zero.
        Zero 1 "z",
        /// Not zero.
        NotZero 2 "nz",
        /// Equal.
        Equal 3 "eq",
        /// Not equal.
        NotEqual 4 "ne",
        /// Less: unsigned, or IEEE.
        Less 5 "lt",
        /// Less or equal.
        LessEqual 6 "le",
        /// Greater.
        Greater 7 "gt",
        /// Greater or equal.
        GreaterEqual 8 "ge",
        /// Less, signed.
        LessSigned 9 "lts",
        /// Less or equal, signed.
        LessEqualSigned 10 "les",
        /// Greater, signed.
        GreaterSigned 11 "gts",
        /// Greater or equal, signed.
        GreaterEqualSigned 12 "ges",
    }
}

impl Condition {
    /// How many operands it looks at.
    #[must_use]
    pub const fn operands(self) -> usize {
        match self {
            Self::Always => 0,
            Self::Zero | Self::NotZero => 1,
            _ => 2,
        }
    }

    /// Whether it takes its operands as signed integers.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        self.code() >= Self::LessSigned.code()
    }
}

named! {
    /// How a runner ends.
    ExitMode {
        /// Commit; run again after a conflict.
        Commit 0 "c",
        /// Abort.
        Abort 1 "a",
        /// Commit, and delete the watcher this is an instance of.
        CommitDelete 2 "cd",
        /// Abort, and delete the watcher.
        AbortDelete 3 "ad",
        /// Commit, once: a conflict is the end.
        CommitOnce 4 "c1",
    }
}

impl ExitMode {
    /// Whether it commits.
    #[must_use]
    pub const fn commits(self) -> bool {
        matches!(self, Self::Commit | Self::CommitDelete | Self::CommitOnce)
    }
}

/// From which type to which `cvt` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// The type of the result.
    pub to: Type,
    /// Integers are signed.
    pub is_signed: bool,
}

/// What bits 3 to 6 of the attribute byte say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Nothing: they are zero.
    None,
    /// A condition.
    Condition(Condition),
    /// A mode of exit.
    Exit(ExitMode),
    /// The other type.
    Convert(Conversion),
}

impl Attribute {
    /// The four bits.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Condition(condition) => condition.code(),
            Self::Exit(mode) => mode.code(),
            Self::Convert(conversion) => conversion.to.code() | (conversion.is_signed as u8) << 3,
        }
    }
}
