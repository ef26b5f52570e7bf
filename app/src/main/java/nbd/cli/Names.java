package nbd.cli;

import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.function.Predicate;
import nbd.file.FileSettings.AccessPattern;
import nbd.file.FileSettings.CacheAdvice;
import nbd.filter.FuaMode;
import nbd.multiconn.MultiConnMode;
import nbd.multiconn.TrackDirty;
import nbd.storage.ThreadModel;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** Options that take one of a few names: what is written, and what is meant. */
abstract class Names<E extends Enum<E>> implements ITypeConverter<E>, Iterable<String> {
  private final List<E> values;

  private Names(E[] values) {
    this(values, value -> true);
  }

  private Names(E[] values, Predicate<E> which) {
    this.values = Arrays.stream(values).filter(which).toList();
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
    return values.stream().<String>map(Names::name).iterator();
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

  /** For --can of info. */
  static final class Ability extends Names<ExportQuestion> {
    Ability() {
      super(ExportQuestion.values(), question -> !question.isProperty());
    }
  }

  /** For --is of info. */
  static final class Property extends Names<ExportQuestion> {
    Property() {
      super(ExportQuestion.values(), ExportQuestion::isProperty);
    }
  }
}
