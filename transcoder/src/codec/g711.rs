//! G.711: eight-bit logarithmic audio at 8 kHz, by table, with the definition beside it. Where the
//! processor has vectors ([`Kernel`]), frames go 8 to 32 samples at a time; what is left over goes by table.
//!
//! Samples are 16 bits wide; the codec itself knows 13 (A-law) or 14 (mu-law), so the lowest
//! bits of the input do not matter and come back as the middle of the quantising step.

use call_model::Codec;

/// Which of the two characteristics of ITU-T G.711.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Mu-law: North America, Japan.
    Mu,
    /// A-law: elsewhere.
    A,
}

/// A way to code frames. All give the same result to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Sample by sample from a table: on any processor.
    Table,
    /// Sixteen samples at a time, on x86-64.
    Avx2,
    /// 32 samples at a time, on x86-64 with AVX-512 BW, VL and VBMI.
    Avx512,
    /// Eight samples at a time, on 64-bit ARM.
    Neon,
}

impl Kernel {
    /// Every kernel there is, the fastest first.
    pub const ALL: [Kernel; 4] = [Kernel::Avx512, Kernel::Avx2, Kernel::Neon, Kernel::Table];

    /// Says whether this processor has what the kernel takes.
    pub fn is_available(self) -> bool {
        match self {
            Kernel::Table => true,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => super::g711_avx512::is_available(),
            Kernel::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(not(target_arch = "x86_64"))]
            Kernel::Avx2 | Kernel::Avx512 => false,
        }
    }

    /// Returns the fastest that this processor has.
    pub fn best() -> Self {
        Self::ALL.into_iter().find(|kernel| kernel.is_available()).unwrap_or(Kernel::Table)
    }
}

impl Law {
    /// Returns the law of a codec; `None` if it is not G.711.
    pub fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::Pcmu => Some(Law::Mu),
            Codec::Pcma => Some(Law::A),
            Codec::Opus | Codec::G722 => None,
        }
    }

    /// Returns the law that this one is not.
    pub fn other(self) -> Self {
        match self {
            Law::Mu => Law::A,
            Law::A => Law::Mu,
        }
    }

    /// Returns this law's code for each code of the other (ITU-T G.711 tables 3 and 4).
    pub fn codes_of_other(self) -> &'static [u8; 256] {
        match self {
            Law::Mu => &MU_OF_A,
            Law::A => &A_OF_MU,
        }
    }

    /// Returns the code of a sample of value 0.
    pub fn silence(self) -> u8 {
        self.encode(0)
    }

    /// Encodes one sample.
    #[inline]
    pub fn encode(self, sample: i16) -> u8 {
        // Both laws ignore at least the two lowest bits, so 16384 entries cover every input.
        let index = (sample as u16 >> 2) as usize;
        match self {
            Law::Mu => MU_ENCODE[index],
            Law::A => A_ENCODE[index],
        }
    }

    /// Decodes one code.
    #[inline]
    pub fn decode(self, code: u8) -> i16 {
        match self {
            Law::Mu => MU_DECODE[usize::from(code)],
            Law::A => A_DECODE[usize::from(code)],
        }
    }

    /// Encodes as many samples as both slices hold and returns how many.
    pub fn encode_into(self, samples: &[i16], codes: &mut [u8]) -> usize {
        self.encode_with(Kernel::best(), samples, codes)
    }

    /// Does what [`Law::encode_into`] does by a given kernel, or by table where the processor lacks it: for tests
    /// and measurements.
    pub fn encode_with(self, kernel: Kernel, samples: &[i16], codes: &mut [u8]) -> usize {
        let len = samples.len().min(codes.len());
        let (samples, codes) = (&samples[..len], &mut codes[..len]);
        let done = match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => super::g711_avx512::encode(self, samples, codes),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => super::g711_avx2::encode(self, samples, codes),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => super::g711_neon::encode(self, samples, codes),
            _ => 0,
        };
        self.encode_by_table(&samples[done..], &mut codes[done..]);
        len
    }

    /// Encodes by table alone: what [`Law::encode_into`] does on any processor. Stops at the end
    /// of the shorter slice.
    pub fn encode_by_table(self, samples: &[i16], codes: &mut [u8]) {
        let table = match self {
            Law::Mu => &MU_ENCODE,
            Law::A => &A_ENCODE,
        };
        for (code, &sample) in codes.iter_mut().zip(samples) {
            *code = table[(sample as u16 >> 2) as usize];
        }
    }

    /// Decodes as many codes as both slices hold and returns how many.
    pub fn decode_into(self, codes: &[u8], samples: &mut [i16]) -> usize {
        self.decode_with(Kernel::best(), codes, samples)
    }

    /// Does what [`Law::decode_into`] does by a given kernel, or by table where the processor lacks it: for tests
    /// and measurements.
    pub fn decode_with(self, kernel: Kernel, codes: &[u8], samples: &mut [i16]) -> usize {
        let len = samples.len().min(codes.len());
        let (codes, samples) = (&codes[..len], &mut samples[..len]);
        let done = match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => super::g711_avx512::decode(self, codes, samples),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => super::g711_avx2::decode(self, codes, samples),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => super::g711_neon::decode(self, codes, samples),
            _ => 0,
        };
        self.decode_by_table(&codes[done..], &mut samples[done..]);
        len
    }

    /// Decodes by table alone: what [`Law::decode_into`] does on any processor. Stops at the end
    /// of the shorter slice.
    pub fn decode_by_table(self, codes: &[u8], samples: &mut [i16]) {
        let table = match self {
            Law::Mu => &MU_DECODE,
            Law::A => &A_DECODE,
        };
        for (sample, &code) in samples.iter_mut().zip(codes) {
            *sample = table[usize::from(code)];
        }
    }
}

/// Added to a magnitude before the mu-law segment is found: 33 in 14 bits, 132 in 16.
const MU_BIAS: u16 = 132;

/// Encodes by the definition of ITU-T G.711 table 2: sign, segment, step; all bits inverted.
pub const fn mu_encode(sample: i16) -> u8 {
    // Two's complement is off by one for negatives: -1 lies in the step of 0 on the negative
    // side. The two lowest bits are below the 14 of the law.
    let negative = sample < 0;
    let magnitude = if negative { !(sample as u16) } else { sample as u16 } & !3;
    let biased = if magnitude > 32_767 - MU_BIAS { 32_767 } else { magnitude + MU_BIAS };
    let segment = 8 - biased.leading_zeros() as u16;
    let step = (biased >> (segment + 3)) & 0x0f;
    let sign = if negative { 0x80 } else { 0 };
    !(sign | (segment << 4) as u8 | step as u8)
}

/// Decodes by the definition of ITU-T G.711 table 2.
pub const fn mu_decode(code: u8) -> i16 {
    let code = !code;
    let segment = (code >> 4) & 7;
    let step = (code & 0x0f) as i16;
    let magnitude = (((step << 3) + MU_BIAS as i16) << segment) - MU_BIAS as i16;
    if code & 0x80 != 0 { -magnitude } else { magnitude }
}

/// Encodes by the definition of ITU-T G.711 table 1: sign, segment, step; even bits inverted.
pub const fn a_encode(sample: i16) -> u8 {
    let positive = sample >= 0;
    // 13 bits: sign and 12 of magnitude; negatives by one's complement.
    let magnitude = if positive { sample as u16 } else { !(sample as u16) } >> 4;
    let (segment, step) = if magnitude < 32 {
        // Segments 0 and 1 share one step size.
        (magnitude >> 4, magnitude & 0x0f)
    } else {
        let segment = 12 - magnitude.leading_zeros() as u16;
        (segment, (magnitude >> (segment - 1)) & 0x0f)
    };
    let sign = if positive { 0x80 } else { 0 };
    (sign | (segment << 4) as u8 | step as u8) ^ 0x55
}

/// Decodes by the definition of ITU-T G.711 table 1.
pub const fn a_decode(code: u8) -> i16 {
    let code = code ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = (code & 0x0f) as i16;
    let magnitude = if segment == 0 { (step << 4) + 8 } else { ((step << 4) + 264) << (segment - 1) };
    if code & 0x80 != 0 { magnitude } else { -magnitude }
}

static MU_ENCODE: [u8; 16_384] = encode_table(Law::Mu);
static A_ENCODE: [u8; 16_384] = encode_table(Law::A);
static MU_DECODE: [i16; 256] = decode_table(Law::Mu);
static A_DECODE: [i16; 256] = decode_table(Law::A);
static MU_OF_A: [u8; 256] = transcode_table(Law::Mu);
static A_OF_MU: [u8; 256] = transcode_table(Law::A);

const fn encode_table(law: Law) -> [u8; 16_384] {
    let mut table = [0; 16_384];
    let mut index = 0;
    while index < table.len() {
        let sample = ((index as u16) << 2) as i16;
        table[index] = match law {
            Law::Mu => mu_encode(sample),
            Law::A => a_encode(sample),
        };
        index += 1;
    }
    table
}

/// The codes of a law for those of the other.
const fn transcode_table(law: Law) -> [u8; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < table.len() {
        table[code] = match law {
            Law::Mu => mu_encode(a_decode(code as u8)),
            Law::A => a_encode(mu_decode(code as u8)),
        };
        code += 1;
    }
    table
}

const fn decode_table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < table.len() {
        table[code] = match law {
            Law::Mu => mu_decode(code as u8),
            Law::A => a_decode(code as u8),
        };
        code += 1;
    }
    table
}
