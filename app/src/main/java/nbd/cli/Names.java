package nbd.cli;

import java.util.Arrays;
import java.util.Iterator;
import java.util.Locale;
import java.util.stream.Collectors;
import nbd.backend.FileSettings.AccessPattern;
import nbd.backend.FileSettings.CacheAdvice;
import nbd.backend.ThreadModel;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.TrackDirty;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Options that take one of a few names: what is written, and what is meant. */
abstract class Names<E extends Enum<E>> implements ITypeConverter<E>, Iterable<String> {
  private final E[] values;

  private Names(E[] values) {
    this.values = values;
  }

  /** The name that users write: in lower case, words joined by hyphens. */
  private static String name(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT).replace('_', '-');
  }

  @Override
  public final E convert(String text) {
    for (E value : values) {
      if (name(value).equals(text)) {
        return value;
      }
    }
    throw new TypeConversionException(
        "\"%s\" is none of %s".formatted(text, String.join(", ", this)));
  }

  @Override
  public final Iterator<String> iterator() {
    return Arrays.stream(values).map(Names::name).collect(Collectors.toList()).iterator();
  }

  /** For --multi-conn-mode. */
  static final class Mode extends Names<MultiConnMode> {
    Mode() {
      super(MultiConnMode.values());
    }
  }

  /** For --multi-conn-track-dirty. */
  static final class Level extends Names<TrackDirty> {
    Level() {
      super(TrackDirty.values());
    }
  }

  /** For --fua. */
  static final class Fua extends Names<FuaMode> {
    Fua() {
      super(FuaMode.values());
    }
  }

  /** For --cache. */
  static final class Cache extends Names<CacheChoice> {
    Cache() {
      super(CacheChoice.values());
    }
  }

  /** For --thread-model. */
  static final class Model extends Names<ThreadModel> {
    Model() {
      super(ThreadModel.values());
    }
  }

  /** For --tls. */
  static final class Tls extends Names<TlsMode> {
    Tls() {
      super(TlsMode.values());
    }
  }

  /** For --fadvise. */
  static final class Pattern extends Names<AccessPattern> {
    Pattern() {
      super(AccessPattern.values());
    }
  }

  /** For --cache-advice. */
  static final class Advice extends Names<CacheAdvice> {
    Advice() {
      super(CacheAdvice.values());
    }
  }
}
