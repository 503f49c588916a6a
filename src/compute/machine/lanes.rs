//! Vectors of f32 lanes: the few operations that primitives are written in, once per instruction set.
//!
//! Input and output: registers and raw memory. Invariant: every operation acts on each lane by itself and gives the same
//! bits in every lane position. Everything is `inline(always)`: callers are entry points that enable the instruction set.
//!
//! # Safety
//! Every method needs the instruction set of its implementor; memory operations need valid pointers for the lanes
//! they touch. These are the callers' promises throughout.
#![allow(unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]

/// Methods of a trait that take vectors and give one: `name(self, others) = value`, inlined.
macro_rules! methods {
    ($($name:ident $(<$bits:ident>)? ($this:ident $(, $other:ident)*) = $value:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name $(<const $bits: i32>)? ($this $(, $other: Self)*) -> Self {
            $value
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
mod x86;

/// A vector of `COUNT` f32 lanes. Integer operations act on the bits of the lanes.
pub trait Lanes: Copy {
    /// Number of lanes.
    const COUNT: usize;

    /// All lanes x.
    unsafe fn splat(x: f32) -> Self;
    /// A vector from memory of any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` ≤ `COUNT` lanes from memory, zero in the others, which are not read.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// The elements 0, 2, 4, … of memory in the first `count` ≤ `COUNT` lanes, zero in the others. Nothing behind the
    /// last of them is read.
    unsafe fn load_second(from: *const f32, count: usize) -> Self;
    /// Writes all lanes.
    unsafe fn store(self, to: *mut f32);
    /// Stores the first `count` ≤ `COUNT` lanes.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// Sum.
    unsafe fn add(self, other: Self) -> Self;
    /// Difference.
    unsafe fn sub(self, other: Self) -> Self;
    /// Product.
    unsafe fn mul(self, other: Self) -> Self;
    /// Quotient.
    unsafe fn div(self, other: Self) -> Self;
    /// The smaller; `other` if either is NaN.
    unsafe fn min(self, other: Self) -> Self;
    /// The larger; `other` if either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `self · b + c`, rounded once (portable: through f64).
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self · b + c` by the fastest instructions, rounded once or twice.
    unsafe fn accumulate(self, b: Self, c: Self) -> Self;
    /// To the nearest integer, ties to even.
    unsafe fn round(self) -> Self;

    /// `self · 2ⁿ` for a whole n between −250 and 250, rounded once.
    #[inline(always)]
    unsafe fn scale(self, n: Self) -> Self {
        // As two factors, so that the whole range fits.
        let n = n.to_int();
        let half = n.shift_right::<1>();
        let bias = Self::bits(127);
        let first = half.int_add(bias).shift_left::<23>();
        let second = n.int_sub(half).int_add(bias).shift_left::<23>();
        self.mul(first).mul(second)
    }
    /// Value to i32 bits, to nearest even; out of range or NaN: any value.
    unsafe fn to_int(self) -> Self;
    /// i32 bits to value.
    unsafe fn int_to_float(self) -> Self;
    /// Sum of the lanes as 32-bit integers.
    unsafe fn int_add(self, other: Self) -> Self;
    /// Difference of the lanes as 32-bit integers.
    unsafe fn int_sub(self, other: Self) -> Self;
    /// Bits of each lane moved up.
    unsafe fn shift_left<const BITS: i32>(self) -> Self;
    /// Arithmetic shift.
    unsafe fn shift_right<const BITS: i32>(self) -> Self;
    /// Bits of both.
    unsafe fn and(self, other: Self) -> Self;
    /// Bits of either.
    unsafe fn or(self, other: Self) -> Self;
    /// Bits of one alone.
    unsafe fn xor(self, other: Self) -> Self;
    /// Per lane `self < bound ? yes : no`; `no` if either is NaN.
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// Per lane `self == other ? yes : no`; `no` if either is NaN.
    unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self;
    /// Bit i is set where `self < bound` is false in lane i (NaN counts as false).
    unsafe fn not_less_mask(self, bound: Self) -> u32;

    /// `to[j·stride + i] = from[i][j]` for `i < from.len()`, from 1 to `COUNT`, and `j < length` ≤ `COUNT`. Rows of `to` are
    /// written whole, `COUNT` lanes each, in order of j; the lanes behind `from.len()` become any value.
    unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize);

    /// The even and the odd lanes of two vectors behind each other.
    unsafe fn deal(self, next: Self) -> (Self, Self);
    /// The inverse of [`Lanes::deal`]: the lanes of both in turn.
    unsafe fn zip_lanes(self, odd: Self) -> (Self, Self);

    /// Asks for the cache line at an address, valid or not.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        let _ = at;
    }

    /// The same of a line that will be written.
    #[inline(always)]
    unsafe fn prefetch_to_write(at: *const f32) {
        let _ = at;
    }

    /// The constant with these bits.
    #[inline(always)]
    unsafe fn bits(bits: u32) -> Self {
        Self::splat(f32::from_bits(bits))
    }
}

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
pub struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn zip_bits(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        self.zip(other, |a, b| f32::from_bits(f(a.to_bits(), b.to_bits())))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i])))
    }
}

impl Lanes for Portable {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Portable(from.cast::<[f32; 8]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        if count >= 8 {
            return Self::load(from);
        }
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            *lane = *from.add(i);
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn load_second(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            *lane = *from.add(2 * i);
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; 8]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        if count >= 8 {
            return self.store(to);
        }
        for (i, lane) in self.0.iter().enumerate().take(count) {
            *to.add(i) = *lane;
        }
    }
    methods! {
        add(self, other) = self.zip(other, |a, b| a + b);
        sub(self, other) = self.zip(other, |a, b| a - b);
        mul(self, other) = self.zip(other, |a, b| a * b);
        div(self, other) = self.zip(other, |a, b| a / b);
        min(self, other) = self.zip(other, |a, b| if a < b { a } else { b });
        max(self, other) = self.zip(other, |a, b| if a > b { a } else { b });
        // The product of two f32 is exact in f64, so that only the sum rounds (twice).
        mul_add(self, b, c) =
            Portable(std::array::from_fn(|i| (self.0[i] as f64 * b.0[i] as f64 + c.0[i] as f64) as f32));
        accumulate(self, b, c) = Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]));
        round(self) = {
            /// Adding and taking off 1.5·2²³ rounds what is below 2²²; larger numbers are left to the slow form.
            const MAGIC: f32 = 12582912.0;
            self.map(|x| if x.abs() < 4194304.0 { (x + MAGIC) - MAGIC } else { x.round_ties_even() })
        };
        to_int(self) = {
            let rounded = self.round();
            rounded.map(|x| f32::from_bits(x as i32 as u32))
        };
        int_to_float(self) = self.map(|x| x.to_bits() as i32 as f32);
        int_add(self, other) = self.zip_bits(other, u32::wrapping_add);
        int_sub(self, other) = self.zip_bits(other, u32::wrapping_sub);
        shift_left<BITS>(self) = self.map(|x| f32::from_bits(x.to_bits() << BITS));
        shift_right<BITS>(self) = self.map(|x| f32::from_bits((x.to_bits() as i32 >> BITS) as u32));
        and(self, other) = self.zip_bits(other, |a, b| a & b);
        or(self, other) = self.zip_bits(other, |a, b| a | b);
        xor(self, other) = self.zip_bits(other, |a, b| a ^ b);
        select_less(self, bound, yes, no) =
            Portable(std::array::from_fn(|i| if self.0[i] < bound.0[i] { yes.0[i] } else { no.0[i] }));
        select_equal(self, other, yes, no) =
            Portable(std::array::from_fn(|i| if self.0[i] == other.0[i] { yes.0[i] } else { no.0[i] }));
    }
    #[inline(always)]
    unsafe fn not_less_mask(self, bound: Self) -> u32 {
        (0..8).fold(0, |mask, i| {
            mask | u32::from(!matches!(self.0[i].partial_cmp(&bound.0[i]), Some(std::cmp::Ordering::Less))) << i
        })
    }
    #[inline(always)]
    unsafe fn deal(self, next: Self) -> (Self, Self) {
        let lane = |i: usize| if i < 8 { self.0[i] } else { next.0[i - 8] };
        (Portable(std::array::from_fn(|i| lane(2 * i))), Portable(std::array::from_fn(|i| lane(2 * i + 1))))
    }
    #[inline(always)]
    unsafe fn zip_lanes(self, odd: Self) -> (Self, Self) {
        let lane = |i: usize| if i.is_multiple_of(2) { self.0[i / 2] } else { odd.0[i / 2] };
        (Portable(std::array::from_fn(lane)), Portable(std::array::from_fn(|i| lane(8 + i))))
    }
    #[inline(always)]
    unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
        for j in 0..length {
            for i in 0..Self::COUNT {
                *to.add(j * stride + i) = if i < from.len() { *from[i].add(j) } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe fn check_transpose<V: Lanes>() {
        let source: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        for rows in 1..=V::COUNT {
            for length in 1..=V::COUNT {
                let from: Vec<*const f32> = (0..rows).map(|i| source[i * 20..].as_ptr()).collect();
                let mut to = vec![-1.0f32; 17 * 17];
                V::transpose(&from, length, to.as_mut_ptr(), 17);
                for j in 0..17 {
                    for i in 0..17 {
                        let got = to[j * 17 + i];
                        if j < length && i < rows {
                            assert_eq!(got, source[i * 20 + j], "rows {rows} length {length} at {j},{i}");
                        } else if j >= length || i >= V::COUNT {
                            assert_eq!(got, -1.0, "rows {rows} length {length} wrote {j},{i}");
                        }
                    }
                }
            }
        }
    }

    unsafe fn check_deal<V: Lanes>() {
        let source: Vec<f32> = (0..2 * V::COUNT).map(|i| i as f32).collect();
        let (even, odd) = V::load(source.as_ptr()).deal(V::load(source.as_ptr().add(V::COUNT)));
        let mut lanes = vec![0.0f32; 2 * V::COUNT];
        even.store(lanes.as_mut_ptr());
        odd.store(lanes.as_mut_ptr().add(V::COUNT));
        for i in 0..V::COUNT {
            assert_eq!([lanes[i], lanes[V::COUNT + i]], [2 * i, 2 * i + 1].map(|x| x as f32));
        }
        let (first, second) = even.zip_lanes(odd);
        first.store(lanes.as_mut_ptr());
        second.store(lanes.as_mut_ptr().add(V::COUNT));
        assert_eq!(lanes, source);
    }

    #[test]
    fn dealing_separates_even_from_odd_lanes_and_zipping_undoes_it() {
        // SAFETY: levels are checked; all pointers lie in the vectors.
        unsafe {
            check_deal::<Portable>();
            #[cfg(target_arch = "x86_64")]
            {
                if crate::machine::Level::Avx2.is_available() {
                    check_deal::<std::arch::x86_64::__m256>();
                }
                if crate::machine::Level::Avx512.is_available() {
                    check_deal::<std::arch::x86_64::__m512>();
                }
            }
        }
    }

    #[test]
    fn transposes_move_every_element_and_touch_nothing_else() {
        // SAFETY: levels are checked; all pointers lie in the vectors.
        unsafe {
            check_transpose::<Portable>();
            #[cfg(target_arch = "x86_64")]
            {
                if crate::machine::Level::Avx2.is_available() {
                    check_transpose::<std::arch::x86_64::__m256>();
                }
                if crate::machine::Level::Avx512.is_available() {
                    check_transpose::<std::arch::x86_64::__m512>();
                }
            }
        }
    }
}
