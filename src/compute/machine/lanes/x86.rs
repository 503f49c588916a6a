//! [`Lanes`] in AVX2 with FMA (`__m256`) and in AVX-512 (`__m512`).
//!
//! Input, output and invariant: see the parent module. No lane operation here crosses lanes but the transposes.
#![allow(unsafe_op_in_unsafe_fn, clippy::missing_safety_doc)]

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
    unsafe fn prefetch_to_write(at: *const f32) {
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
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
    unsafe fn load_second(from: *const f32, count: usize) -> Self {
        let reach = 2 * count.min(8);
        let low = Self::load_first(from, reach.saturating_sub(1).min(8));
        let high = Self::load_first(from.wrapping_add(8), reach.saturating_sub(9));
        let mixed = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(mixed)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self);
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        _mm256_maskstore_ps(to, mask8(count), self);
    }
    methods! {
        add(self, other) = _mm256_add_ps(self, other);
        sub(self, other) = _mm256_sub_ps(self, other);
        mul(self, other) = _mm256_mul_ps(self, other);
        div(self, other) = _mm256_div_ps(self, other);
        min(self, other) = _mm256_min_ps(self, other);
        max(self, other) = _mm256_max_ps(self, other);
        mul_add(self, b, c) = _mm256_fmadd_ps(self, b, c);
        accumulate(self, b, c) = _mm256_fmadd_ps(self, b, c);
        round(self) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self);
        to_int(self) = floats(_mm256_cvtps_epi32(self));
        int_to_float(self) = _mm256_cvtepi32_ps(ints(self));
        int_add(self, other) = floats(_mm256_add_epi32(ints(self), ints(other)));
        int_sub(self, other) = floats(_mm256_sub_epi32(ints(self), ints(other)));
        shift_left<BITS>(self) = floats(_mm256_slli_epi32::<BITS>(ints(self)));
        shift_right<BITS>(self) = floats(_mm256_srai_epi32::<BITS>(ints(self)));
        and(self, other) = _mm256_and_ps(self, other);
        or(self, other) = _mm256_or_ps(self, other);
        xor(self, other) = _mm256_xor_ps(self, other);
        select_less(self, bound, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(self, bound));
        select_equal(self, other, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_EQ_OQ>(self, other));
    }
    #[inline(always)]
    unsafe fn not_less_mask(self, bound: Self) -> u32 {
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(self, bound)) as u32
    }
    #[inline(always)]
    unsafe fn deal(self, next: Self) -> (Self, Self) {
        // Within halves first: quarters come out in the order 0, 2, 1, 3.
        let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(self, next));
        let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xDD>(self, next));
        (_mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(even)), _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(odd)))
    }
    #[inline(always)]
    unsafe fn zip_lanes(self, odd: Self) -> (Self, Self) {
        let (low, high) = (_mm256_unpacklo_ps(self, odd), _mm256_unpackhi_ps(self, odd));
        (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }
    #[inline(always)]
    unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
        if length == Self::COUNT {
            transpose_rows8(from, Self::COUNT, to, stride);
        } else {
            transpose_rows8(from, length, to, stride);
        }
    }
}

/// [`Lanes::transpose`] for a length that is known where it is inlined.
#[inline(always)]
unsafe fn transpose_rows8(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
    let row = |i: usize| from[i.min(from.len() - 1)];
    for k in (0..length).step_by(4) {
        let columns = if k + 4 <= length {
            let pair = |i: usize| {
                let low = _mm256_castps128_ps256(_mm_loadu_ps(row(i).add(k)));
                _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(row(i + 4).add(k)))
            };
            transpose4x2([pair(0), pair(1), pair(2), pair(3)])
        } else {
            let mask = _mm256_castsi256_si128(mask8(length - k));
            let pair = |i: usize| {
                let low = _mm256_castps128_ps256(_mm_maskload_ps(row(i).add(k), mask));
                _mm256_insertf128_ps::<1>(low, _mm_maskload_ps(row(i + 4).add(k), mask))
            };
            transpose4x2([pair(0), pair(1), pair(2), pair(3)])
        };
        for (j, column) in columns.into_iter().enumerate().take(length - k) {
            _mm256_storeu_ps(to.add((k + j) * stride), column);
        }
    }
}

/// Transposes the 4x4 blocks of each 128-bit half.
#[inline(always)]
unsafe fn transpose4x2(r: [__m256; 4]) -> [__m256; 4] {
    let (a, b) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
    let (c, d) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
    [
        _mm256_shuffle_ps::<0x44>(a, c),
        _mm256_shuffle_ps::<0xEE>(a, c),
        _mm256_shuffle_ps::<0x44>(b, d),
        _mm256_shuffle_ps::<0xEE>(b, d),
    ]
}

/// Transposes the 4x4 blocks of each 128-bit quarter.
#[inline(always)]
unsafe fn transpose4x4(r: [__m512; 4]) -> [__m512; 4] {
    let (a, b) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
    let (c, d) = (_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
    [
        _mm512_shuffle_ps::<0x44>(a, c),
        _mm512_shuffle_ps::<0xEE>(a, c),
        _mm512_shuffle_ps::<0x44>(b, d),
        _mm512_shuffle_ps::<0xEE>(b, d),
    ]
}

impl Lanes for __m512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }

    #[inline(always)]
    unsafe fn prefetch_to_write(at: *const f32) {
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
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
    unsafe fn load_second(from: *const f32, count: usize) -> Self {
        let reach = 2 * count.min(16);
        let low = Self::load_first(from, reach.saturating_sub(1).min(16));
        let high = Self::load_first(from.wrapping_add(16), reach.saturating_sub(17));
        let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        _mm512_permutex2var_ps(low, even, high)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self);
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        _mm512_mask_storeu_ps(to, mask16(count), self);
    }
    methods! {
        add(self, other) = _mm512_add_ps(self, other);
        sub(self, other) = _mm512_sub_ps(self, other);
        mul(self, other) = _mm512_mul_ps(self, other);
        div(self, other) = _mm512_div_ps(self, other);
        min(self, other) = _mm512_min_ps(self, other);
        max(self, other) = _mm512_max_ps(self, other);
        mul_add(self, b, c) = _mm512_fmadd_ps(self, b, c);
        accumulate(self, b, c) = _mm512_fmadd_ps(self, b, c);
        round(self) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self);
        scale(self, n) = _mm512_scalef_ps(self, n);
        to_int(self) = _mm512_castsi512_ps(_mm512_cvtps_epi32(self));
        int_to_float(self) = _mm512_cvtepi32_ps(_mm512_castps_si512(self));
        int_add(self, other) =
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self), _mm512_castps_si512(other)));
        int_sub(self, other) =
            _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(self), _mm512_castps_si512(other)));
        // The intrinsic's constant is unsigned; the variable form folds to the same instruction.
        shift_left<BITS>(self) =
            _mm512_castsi512_ps(_mm512_sllv_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(BITS)));
        shift_right<BITS>(self) =
            _mm512_castsi512_ps(_mm512_srav_epi32(_mm512_castps_si512(self), _mm512_set1_epi32(BITS)));
        and(self, other) = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)));
        or(self, other) = _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)));
        xor(self, other) = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(self), _mm512_castps_si512(other)));
        select_less(self, bound, yes, no) =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, bound), no, yes);
        select_equal(self, other, yes, no) =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self, other), no, yes);
    }
    #[inline(always)]
    unsafe fn not_less_mask(self, bound: Self) -> u32 {
        u32::from(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self, bound))
    }
    #[inline(always)]
    unsafe fn deal(self, next: Self) -> (Self, Self) {
        let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        let odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
        (_mm512_permutex2var_ps(self, even, next), _mm512_permutex2var_ps(self, odd, next))
    }
    #[inline(always)]
    unsafe fn zip_lanes(self, odd: Self) -> (Self, Self) {
        let first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        let second = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
        (_mm512_permutex2var_ps(self, first, odd), _mm512_permutex2var_ps(self, second, odd))
    }
    #[inline(always)]
    unsafe fn transpose(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
        if length == Self::COUNT {
            transpose_rows16(from, Self::COUNT, to, stride);
        } else {
            transpose_rows16(from, length, to, stride);
        }
    }
}

/// [`Lanes::transpose`] for a length that is known where it is inlined.
#[inline(always)]
unsafe fn transpose_rows16(from: &[*const f32], length: usize, to: *mut f32, stride: usize) {
    // Four rows at a distance of four fill one register by loads, so that only 4x4 blocks are shuffled.
    let row = |i: usize| from[i.min(from.len() - 1)];
    for k in (0..length).step_by(4) {
        let mask = mask16(length - k) as u8;
        let four = |i: usize| {
            let quarter = |l: usize| _mm_maskz_loadu_ps(mask, row(4 * l + i).add(k));
            let x = _mm512_castps128_ps512(quarter(0));
            let x = _mm512_mask_broadcast_f32x4(x, 0x00F0, quarter(1));
            let x = _mm512_mask_broadcast_f32x4(x, 0x0F00, quarter(2));
            _mm512_mask_broadcast_f32x4(x, 0xF000, quarter(3))
        };
        let whole = |i: usize| {
            let quarter = |l: usize| _mm_loadu_ps(row(4 * l + i).add(k));
            let x = _mm512_castps128_ps512(quarter(0));
            let x = _mm512_mask_broadcast_f32x4(x, 0x00F0, quarter(1));
            let x = _mm512_mask_broadcast_f32x4(x, 0x0F00, quarter(2));
            _mm512_mask_broadcast_f32x4(x, 0xF000, quarter(3))
        };
        let columns = if k + 4 <= length {
            transpose4x4([whole(0), whole(1), whole(2), whole(3)])
        } else {
            transpose4x4([four(0), four(1), four(2), four(3)])
        };
        for (j, column) in columns.into_iter().enumerate().take(length - k) {
            _mm512_storeu_ps(to.add((k + j) * stride), column);
        }
    }
}
