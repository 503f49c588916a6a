//! Vectors of f32 lanes: the few operations that primitives are written in, once per instruction set.
//!
//! Input and output: registers and raw memory. Invariant: every operation acts on each lane by itself and gives the same
//! bits in every lane position. Everything is `inline(always)`: callers are entry points that enable the instruction set.
//!
//! # Safety
//! Every method needs the instruction set of its implementor; memory operations need valid pointers for the lanes
//! they touch. These are the callers' promises throughout.
#![allow(unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]

/// A vector of `COUNT` f32 lanes. Integer operations act on the bits of the lanes.
pub(crate) trait Lanes: Copy {
    /// Number of lanes.
    const COUNT: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` ≤ `COUNT` lanes from memory, zero in the others, which are not read.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Stores the first `count` ≤ `COUNT` lanes.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
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

    /// Value to i32 bits, to nearest even; out of range or NaN: any value.
    unsafe fn to_int(self) -> Self;
    /// i32 bits to value.
    unsafe fn int_to_float(self) -> Self;
    unsafe fn int_add(self, other: Self) -> Self;
    unsafe fn int_sub(self, other: Self) -> Self;
    unsafe fn shift_left<const BITS: i32>(self) -> Self;
    /// Arithmetic shift.
    unsafe fn shift_right<const BITS: i32>(self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Per lane `self < bound ? yes : no`; `no` if either is NaN.
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self;
    /// Per lane `self == other ? yes : no`; `no` if either is NaN.
    unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self;
    /// Bit i is set where `self < bound` is false in lane i (NaN counts as false).
    unsafe fn not_less_mask(self, bound: Self) -> u32;

    /// `to[j·stride + i] = from[i][j]` for `i < from.len()` ≤ `COUNT` and `j < length` ≤ `COUNT`. Rows of `to` are
    /// written whole, `COUNT` lanes each, in order of j; the lanes behind `from.len()` become any value.
    unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize);

    /// Asks for the cache line at an address, valid or not.
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
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
pub(crate) struct Portable([f32; 8]);

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
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // The product of two f32 is exact in f64, so that only the sum rounds (twice).
        Portable(std::array::from_fn(|i| (self.0[i] as f64 * b.0[i] as f64 + c.0[i] as f64) as f32))
    }
    #[inline(always)]
    unsafe fn accumulate(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        /// Adding and taking off 1.5·2²³ rounds what is below 2²²; larger numbers are left to the slow form.
        const MAGIC: f32 = 12582912.0;
        self.map(|x| if x.abs() < 4194304.0 { (x + MAGIC) - MAGIC } else { x.round_ties_even() })
    }
    #[inline(always)]
    unsafe fn to_int(self) -> Self {
        let rounded = self.round();
        rounded.map(|x| f32::from_bits(x as i32 as u32))
    }
    #[inline(always)]
    unsafe fn int_to_float(self) -> Self {
        self.map(|x| x.to_bits() as i32 as f32)
    }
    #[inline(always)]
    unsafe fn int_add(self, other: Self) -> Self {
        self.zip_bits(other, u32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn int_sub(self, other: Self) -> Self {
        self.zip_bits(other, u32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: i32>(self) -> Self {
        self.map(|x| f32::from_bits(x.to_bits() << BITS))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: i32>(self) -> Self {
        self.map(|x| f32::from_bits((x.to_bits() as i32 >> BITS) as u32))
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
        Portable(std::array::from_fn(|i| if self.0[i] < bound.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self {
        Portable(std::array::from_fn(|i| if self.0[i] == other.0[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    unsafe fn not_less_mask(self, bound: Self) -> u32 {
        (0..8).fold(0, |mask, i| {
            mask | u32::from(!matches!(self.0[i].partial_cmp(&bound.0[i]), Some(std::cmp::Ordering::Less))) << i
        })
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// Eight lanes set, then eight clear: a mask of `count` lanes starts at `8 - count`.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn mask8(count: usize) -> __m256i {
        _mm256_loadu_si256(MASKS.as_ptr().add(8 - count.min(8)).cast())
    }

    #[inline(always)]
    fn mask16(count: usize) -> u16 {
        ((1u32 << count.min(16)) - 1) as u16
    }

    #[inline(always)]
    unsafe fn ints(x: __m256) -> __m256i {
        _mm256_castps_si256(x)
    }

    #[inline(always)]
    unsafe fn floats(x: __m256i) -> __m256 {
        _mm256_castsi256_ps(x)
    }

    impl Lanes for __m256 {
        const COUNT: usize = 8;

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            _mm256_set1_ps(x)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            _mm256_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            _mm256_maskload_ps(from, mask8(count))
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            _mm256_storeu_ps(to, self);
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            _mm256_maskstore_ps(to, mask8(count), self);
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            _mm256_add_ps(self, other)
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            _mm256_sub_ps(self, other)
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            _mm256_mul_ps(self, other)
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            _mm256_div_ps(self, other)
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            _mm256_min_ps(self, other)
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            _mm256_max_ps(self, other)
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            _mm256_fmadd_ps(self, b, c)
        }
        #[inline(always)]
        unsafe fn accumulate(self, b: Self, c: Self) -> Self {
            _mm256_fmadd_ps(self, b, c)
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self)
        }
        #[inline(always)]
        unsafe fn to_int(self) -> Self {
            floats(_mm256_cvtps_epi32(self))
        }
        #[inline(always)]
        unsafe fn int_to_float(self) -> Self {
            _mm256_cvtepi32_ps(ints(self))
        }
        #[inline(always)]
        unsafe fn int_add(self, other: Self) -> Self {
            floats(_mm256_add_epi32(ints(self), ints(other)))
        }
        #[inline(always)]
        unsafe fn int_sub(self, other: Self) -> Self {
            floats(_mm256_sub_epi32(ints(self), ints(other)))
        }
        #[inline(always)]
        unsafe fn shift_left<const BITS: i32>(self) -> Self {
            floats(_mm256_slli_epi32::<BITS>(ints(self)))
        }
        #[inline(always)]
        unsafe fn shift_right<const BITS: i32>(self) -> Self {
            floats(_mm256_srai_epi32::<BITS>(ints(self)))
        }
        #[inline(always)]
        unsafe fn and(self, other: Self) -> Self {
            _mm256_and_ps(self, other)
        }
        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            _mm256_or_ps(self, other)
        }
        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            _mm256_xor_ps(self, other)
        }
        #[inline(always)]
        unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(self, bound))
        }
        #[inline(always)]
        unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_EQ_OQ>(self, other))
        }
        #[inline(always)]
        unsafe fn not_less_mask(self, bound: Self) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self, bound)) as u32
        }
        #[inline(always)]
        unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
            let mut r = [_mm256_setzero_ps(); 8];
            if length >= 8 {
                for (row, &pointer) in r.iter_mut().zip(from) {
                    *row = _mm256_loadu_ps(pointer);
                }
            } else {
                let mask = mask8(length);
                for (row, &pointer) in r.iter_mut().zip(from) {
                    *row = _mm256_maskload_ps(pointer, mask);
                }
            }
            transpose8(&mut r);
            for (j, row) in r.iter().enumerate().take(length) {
                _mm256_storeu_ps(to.add(j * stride), *row);
            }
        }
    }

    /// Transposes an 8x8 block in registers.
    #[inline(always)]
    unsafe fn transpose8(r: &mut [__m256; 8]) {
        let mut t = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut s = [_mm256_setzero_ps(); 8];
        for i in 0..2 {
            s[4 * i] = _mm256_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
            s[4 * i + 1] = _mm256_shuffle_ps::<0xEE>(t[4 * i], t[4 * i + 2]);
            s[4 * i + 2] = _mm256_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
            s[4 * i + 3] = _mm256_shuffle_ps::<0xEE>(t[4 * i + 1], t[4 * i + 3]);
        }
        for i in 0..4 {
            r[i] = _mm256_permute2f128_ps::<0x20>(s[i], s[i + 4]);
            r[i + 4] = _mm256_permute2f128_ps::<0x31>(s[i], s[i + 4]);
        }
    }

    impl Lanes for __m512 {
        const COUNT: usize = 16;

        #[inline(always)]
        unsafe fn prefetch(at: *const f32) {
            _mm_prefetch::<_MM_HINT_T0>(at.cast());
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            _mm512_set1_ps(x)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            _mm512_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            _mm512_maskz_loadu_ps(mask16(count), from)
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            _mm512_storeu_ps(to, self);
        }
        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            _mm512_mask_storeu_ps(to, mask16(count), self);
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            _mm512_add_ps(self, other)
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            _mm512_sub_ps(self, other)
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            _mm512_mul_ps(self, other)
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            _mm512_div_ps(self, other)
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            _mm512_min_ps(self, other)
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            _mm512_max_ps(self, other)
        }
        #[inline(always)]
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            _mm512_fmadd_ps(self, b, c)
        }
        #[inline(always)]
        unsafe fn accumulate(self, b: Self, c: Self) -> Self {
            _mm512_fmadd_ps(self, b, c)
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self)
        }
        #[inline(always)]
        unsafe fn to_int(self) -> Self {
            _mm512_castsi512_ps(_mm512_cvtps_epi32(self))
        }
        #[inline(always)]
        unsafe fn int_to_float(self) -> Self {
            _mm512_cvtepi32_ps(_mm512_castps_si512(self))
        }
        #[inline(always)]
        unsafe fn int_add(self, other: Self) -> Self {
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), _mm512_castps_si512(other)))
        }
        #[inline(always)]
        unsafe fn int_sub(self, other: Self) -> Self {
            _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(self), _mm512_castps_si512(other)))
        }
        #[inline(always)]
        unsafe fn shift_left<const BITS: i32>(self) -> Self {
            // The intrinsic's constant is unsigned; the variable form folds to the same instruction.
            _mm512_castsi512_ps(_mm512_sllv_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(BITS)))
        }
        #[inline(always)]
        unsafe fn shift_right<const BITS: i32>(self) -> Self {
            _mm512_castsi512_ps(_mm512_srav_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(BITS)))
        }
        #[inline(always)]
        unsafe fn and(self, other: Self) -> Self {
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)))
        }
        #[inline(always)]
        unsafe fn or(self, other: Self) -> Self {
            _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)))
        }
        #[inline(always)]
        unsafe fn xor(self, other: Self) -> Self {
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)))
        }
        #[inline(always)]
        unsafe fn select_less(self, bound: Self, yes: Self, no: Self) -> Self {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, bound), no, yes)
        }
        #[inline(always)]
        unsafe fn select_equal(self, other: Self, yes: Self, no: Self) -> Self {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self, other), no, yes)
        }
        #[inline(always)]
        unsafe fn not_less_mask(self, bound: Self) -> u32 {
            u32::from(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self, bound))
        }
        #[inline(always)]
        unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
            let mut r = [_mm512_setzero_ps(); 16];
            let mask = mask16(length);
            for (row, &pointer) in r.iter_mut().zip(from) {
                *row = _mm512_maskz_loadu_ps(mask, pointer);
            }
            transpose16(&mut r);
            for (j, row) in r.iter().enumerate().take(length) {
                _mm512_storeu_ps(to.add(j * stride), *row);
            }
        }
    }

    /// Transposes a 16x16 block in registers: 4x4 blocks inside 128-bit lanes, then the lanes.
    #[inline(always)]
    unsafe fn transpose16(r: &mut [__m512; 16]) {
        let mut t = [_mm512_setzero_ps(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            r[4 * i] = _mm512_shuffle_ps::<0x44>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 1] = _mm512_shuffle_ps::<0xEE>(t[4 * i], t[4 * i + 2]);
            r[4 * i + 2] = _mm512_shuffle_ps::<0x44>(t[4 * i + 1], t[4 * i + 3]);
            r[4 * i + 3] = _mm512_shuffle_ps::<0xEE>(t[4 * i + 1], t[4 * i + 3]);
        }
        // r[4g + c] holds, in 128-bit lane l, column 4l + c of rows 4g..4g+4.
        for c in 0..4 {
            let low = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
            let high = _mm512_shuffle_f32x4::<0xDD>(r[c], r[4 + c]);
            let low2 = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
            let high2 = _mm512_shuffle_f32x4::<0xDD>(r[8 + c], r[12 + c]);
            t[c] = _mm512_shuffle_f32x4::<0x88>(low, low2);
            t[8 + c] = _mm512_shuffle_f32x4::<0xDD>(low, low2);
            t[4 + c] = _mm512_shuffle_f32x4::<0x88>(high, high2);
            t[12 + c] = _mm512_shuffle_f32x4::<0xDD>(high, high2);
        }
        *r = t;
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

    #[test]
    fn transposes_move_every_element_and_touch_nothing_else() {
        // SAFETY: levels are checked; all pointers lie in the vectors.
        unsafe {
            check_transpose::<Portable>();
            #[cfg(target_arch = "x86_64")]
            {
                if crate::primitives::Level::Avx2.is_available() {
                    check_transpose::<std::arch::x86_64::__m256>();
                }
                if crate::primitives::Level::Avx512.is_available() {
                    check_transpose::<std::arch::x86_64::__m512>();
                }
            }
        }
    }
}
