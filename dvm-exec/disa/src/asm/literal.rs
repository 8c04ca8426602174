//! Numbers that fit their place.
//!
//! Owns ranges, and how numbers with a fraction become bits. Must not know symbols.

use super::diagnostic::Reason;
use crate::types::Type;

/// The bits of an integer in a cell of this type.
///
/// # Errors
/// It does not fit, signed or unsigned.
pub fn integer(value: i128, ty: Type) -> Result<u64, Reason> {
    let bits = ty.bits();
    let range = -(1i128 << (bits - 1))..1i128 << bits;
    if range.contains(&value) {
        Ok(value as u64 & ty.mask())
    } else {
        let place = match ty {
            Type::B => "a byte",
            Type::W => "2 bytes",
            Type::L | Type::F => "4 bytes",
            Type::Q | Type::D => "8 bytes",
        };
        Err(Reason::TooLarge { value: value.to_string(), place })
    }
}

/// The bits of an integer as a number of this floating-point type.
///
/// # Errors
/// It has no exact value there.
pub fn integer_as_real(value: i128, ty: Type) -> Result<u64, Reason> {
    let (bits, back) = match ty {
        Type::F => (u64::from((value as f32).to_bits()), (value as f32) as i128),
        _ => ((value as f64).to_bits(), (value as f64) as i128),
    };
    let place = "a floating-point number without rounding";
    if back == value { Ok(bits) } else { Err(Reason::TooLarge { value: value.to_string(), place }) }
}

/// The bits of a written number, rounded to the nearest.
///
/// # Errors
/// The type has no fractions, or the number is beyond its range.
pub fn real(text: &str, ty: Type) -> Result<u64, Reason> {
    let too_large = || Reason::TooLarge { value: text.into(), place: "a finite number" };
    match ty {
        Type::F => {
            let value = text.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(too_large)?;
            Ok(u64::from(value.to_bits()))
        }
        Type::D => {
            let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(too_large)?;
            Ok(value.to_bits())
        }
        Type::B | Type::W | Type::L | Type::Q => Err(Reason::WrongLiteral("a fraction where an integer is needed")),
    }
}
