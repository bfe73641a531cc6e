//! Privacy: what lets events be counted and joined without telling whom they are about.

use std::fmt::{self, Write};
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::argument::{Takes, integer, text};
use super::{Call, Function, Literals, Outcome, PrepareError, Prepared};
use crate::settings::Settings;
use crate::value::Value;

/// Bits of an address that stay, unless the call says otherwise: an office, not a person.
const V4_BITS: i64 = 24;
const V6_BITS: i64 = 48;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("hmac_sha256", &[Takes::String, Takes::String], hmac_sha256)
        .prepared_by(prepare_hmac),
    Function::new("ip_prefix", &[Takes::String], ip_prefix)
        .with_optional(&[Takes::Count, Takes::Count])
        .prepared_by(prepare_prefix),
    Function::new("mask", &[Takes::String], mask).with_optional(&[Takes::Count]),
    Function::new("sha256", &[Takes::String], |a| {
        a.context.text(hex(&Sha256::digest(text(&a[0]).as_bytes())))
    }),
    Function::new("truncate", &[Takes::String, Takes::Count], |a| {
        let kept = text(&a[0]).chars().take(integer(&a[1]) as usize).collect();
        a.context.text(kept)
    }),
];

/// A key, ready to use. `Debug` doesn't show it.
pub(crate) struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

fn prepare_hmac(literals: Literals<'_>, settings: &Settings) -> Result<Prepared, PrepareError> {
    let wrong = |reason| (1, reason);
    let Some(name) = literals[1] else {
        let reason = "the name of a secret is written as 'text', so that it can be looked up now";
        return Err(wrong(reason.to_owned()));
    };
    let name = text(name);
    let key = settings.secrets.get(&name).ok_or_else(|| {
        let known: Vec<_> = settings.secrets.names().collect();
        wrong(match known.is_empty() {
            true => format!("there is no secret '{name}'; a route sets it as dsl.secret.{name}"),
            false => format!(
                "there is no secret '{name}', only {}; a route sets it as dsl.secret.{name}",
                known.join(", ")
            ),
        })
    })?;
    let key = Hmac::new_from_slice(key).map_err(|error| wrong(error.to_string()))?;
    Ok(Prepared::Key(Key(key)))
}

fn hmac_sha256<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let Prepared::Key(Key(keyed)) = call.prepared else {
        return Ok(Value::Null);
    };
    let mut keyed = keyed.clone();
    keyed.update(text(&call[0]).as_bytes());
    call.context.text(hex(&keyed.finalize().into_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string can't fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// All characters but the last few as `*`; all of them where the text is no longer than what should stay.
fn mask<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let text = text(&call[0]);
    let length = text.chars().count();
    let kept = call.get(1).map_or(0, |kept| integer(kept) as usize);
    let hidden = if kept < length { length - kept } else { length };
    let stars = std::iter::repeat_n('*', hidden);
    call.context
        .text(stars.chain(text.chars().skip(hidden)).collect())
}

/// The address with its last bits zero, in the notation of networks. An IPv4 address within IPv6 is taken as IPv4.
fn ip_prefix<'a>(call: &Call<'_, 'a>) -> Outcome<'a> {
    let (v4, v6) = bits(call.get(1), call.get(2))
        .map_err(|(index, reason)| format!("argument {}: {reason}", index + 1))?;
    let address: IpAddr = text(&call[0])
        .parse()
        .map_err(|_| "argument 1 is a string that is no IP address".to_owned())?;
    call.context.text(match address.to_canonical() {
        IpAddr::V4(address) => {
            let kept = u32::MAX.checked_shl(32 - v4).unwrap_or(0);
            format!(
                "{}/{v4}",
                std::net::Ipv4Addr::from(u32::from(address) & kept)
            )
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
            format!(
                "{}/{v6}",
                std::net::Ipv6Addr::from(u128::from(address) & kept)
            )
        }
    })
}

/// How many bits stay of an IPv4 and of an IPv6 address.
fn bits(v4: Option<&Value<'_>>, v6: Option<&Value<'_>>) -> Result<(u32, u32), PrepareError> {
    let bits = |index, given: Option<&Value<'_>>, default, most| {
        let bits = given.map_or(default, integer);
        if bits > most {
            return Err((index, format!("an address of this kind has {most} bits")));
        }
        Ok(bits as u32)
    };
    Ok((bits(1, v4, V4_BITS, 32)?, bits(2, v6, V6_BITS, 128)?))
}

fn prepare_prefix(literals: Literals<'_>, _: &Settings) -> Result<Prepared, PrepareError> {
    let literal = |index| literals.get(index).copied().flatten();
    bits(literal(1), literal(2)).map(|_| Prepared::Nothing)
}

#[cfg(test)]
mod tests;
