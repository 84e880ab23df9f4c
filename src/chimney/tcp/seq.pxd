cpdef long long add(long long number, long long offset) noexcept
cpdef long long diff(long long a, long long b) noexcept
cpdef bint lt(long long a, long long b) noexcept
cpdef bint leq(long long a, long long b) noexcept
cpdef long long latest(long long a, long long b) noexcept
cpdef long long unwrap(long long number, long long reference, long long position) noexcept
